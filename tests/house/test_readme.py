"""What a reader can copy works: the README's tour is run word for word, its tables are true."""

import os
import re
import shlex
import subprocess

import pytest

from embedstore.models.registry import REGISTRY
from embedstore.store.views import VIEWS
from tests.making.commands import BIN, ROOT, call_command
from tests.making.slides import make_tiny

README = (ROOT / "README.md").read_text()
BLOCKS = [b.strip().splitlines() for b in re.findall(r"```\n(.*?)```", README, flags=re.DOTALL)]


def block(start: str) -> list[str]:
    found: list[str]
    (found,) = [b for b in BLOCKS if b[0].startswith(start)]
    return found


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> list[subprocess.CompletedProcess[str]]:
    """The five lines, in a folder with a user's files, then the queries."""
    folder = tmp_path_factory.mktemp("tour")
    tiny = make_tiny(folder, per_label=15, domains=("a", "b", "c", "d"))
    tiny.csv.rename(folder / "cells.csv")
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    lines = block("embedstore add mine") + block('embedstore sql "select role')
    return [
        subprocess.run(shlex.split(line), cwd=folder, env=env, capture_output=True, text=True)
        for line in lines
    ]


def test_the_tour_runs_word_for_word(tour: list[subprocess.CompletedProcess[str]]) -> None:
    for done in tour:
        assert done.returncode == 0, f"{done.args}\n{done.stderr}"
    assert "4 slides" in tour[0].stderr or "8 slides" in tour[0].stderr
    assert "240" in tour[1].stdout
    assert "efficientnet-lite0" in tour[4].stdout
    assert "train" in tour[5].stdout


def test_every_command_and_view_is_in_the_readme() -> None:
    for app in ("embedstore", "probes", "e2e"):
        helped = call_command(app, "--help", env={"COLUMNS": "100"}).out
        commands = re.findall(r"^│ ([a-z]+) ", helped, flags=re.MULTILINE)
        assert commands
        for name in commands:
            assert f"| `{app} {name}" in README, name
    for view in (*VIEWS, "embeddings"):
        assert re.search(rf"^\|.*\b{view}\b.*\|$", README, flags=re.MULTILINE), view


def test_the_file_map_is_complete() -> None:
    """Every wing, and every single room at a package's top."""
    section = README[README.index("## Where things are") + 3 :].split("\n## ")[0]
    listed = set(re.findall(r"[a-z_0-9]+", section))
    for package in ("embedstore", "probes", "e2e"):
        wings = {p.parent for p in (ROOT / package).glob("*/__init__.py")}
        for path in (*wings, *(ROOT / package).glob("[a-z]*.py")):
            assert path.stem in listed, path


def test_make_targets_of_the_docs_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in set(
        re.findall(
            r"^make ([a-z]+)", README + (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE
        )
    ):
        assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE), name


def test_no_path_of_a_machine_and_no_secret_in_the_repository() -> None:
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    for name in files:
        text = (ROOT / name).read_text(errors="ignore")
        assert not re.search(r"/(root|home|Users)/\w", text), name
        assert not re.search(r"hf_[A-Za-z0-9]{20}", text), name


def test_the_models_of_the_readme_are_known() -> None:
    for name in re.findall(r"--model ([a-z0-9-]+)", README):
        assert name in REGISTRY
    listed = README[README.index("(gigapath") :]
    named = re.findall(r"[a-z][a-z0-9-]+", listed[: listed.index("and more")])
    assert set(named) <= set(REGISTRY)
