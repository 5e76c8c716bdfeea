"""A model, format, probe, metric, scheme and section more, each by one file of a copy.

The declarations are those of docs/extending.md, written into the files that the page names.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.making.commands import ROOT
from tests.making.pages import blocks
from tests.making.slides import make_tiny

# What begins each example of the page, and the one file of code that it goes into.
ADDED = {
    'REGISTRY["our-vits16"]': "embedstore/models/registry.py",
    'FORMATS = {"asap"': "embedstore/annotations/asap.py",
    'METHODS["lda"]': "probes/methods/table.py",
    'METRICS["specificity"]': "probes/scores/metrics.py",
    'SCHEMES["five-fold"]': "probes/splits/schemes.py",
    "SECTION = Maker": "probes/reports/sections/counts.py",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with one addition of each kind."""
    made = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("embedstore", "probes", "e2e"):
        shutil.copytree(ROOT / name, made / name, ignore=ignored)
    shutil.copy(ROOT / "cli.py", made)
    for start, file in ADDED.items():
        (block,) = [b for b in blocks("extending.md", "python") if start in b]
        path = made / file
        before = path.read_text() if path.exists() else ""
        path.write_text(before + "\n\n" + block)
    return made


def test_each_of_the_six_kinds_takes_one_file_of_code(copy: Path) -> None:
    changed = {
        str(p.relative_to(copy))
        for p in copy.rglob("*.py")
        if not (ROOT / p.relative_to(copy)).exists()
        or p.read_bytes() != (ROOT / p.relative_to(copy)).read_bytes()
    }
    assert changed == set(ADDED.values())


def test_all_of_them_are_known_everywhere(copy: Path, tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "tiny", per_label=6)
    corners = ((0, 0), (60, 0), (60, 120), (0, 120))
    square = "".join(f'<Coordinate X="{x}" Y="{y}"/>' for x, y in corners)
    cell = f'<Annotation PartOfGroup="mitosis"><Coordinates>{square}</Coordinates></Annotation>'
    asap = tmp_path / "one.xml"
    asap.write_text(f"<ASAP_Annotations><Annotations>{cell}</Annotations></ASAP_Annotations>")
    store = tmp_path / "store"
    env = os.environ | {"EMBEDSTORE_URI": str(store), "COLUMNS": "300", "PYTHONPATH": str(copy)}

    def run(*words: object) -> Any:
        command = [sys.executable, "-m", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=copy)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in words else done.stdout

    for app, name, word in (
        ("embedstore", "add", "asap"),
        ("embedstore", "models", None),
        ("probes", "run", "lda: shrunken"),
        ("probes", "run", "five-fold: five disjoint"),
        ("probes", "compare", "specificity"),
    ):
        assert word is None or word in run(app, name, "--help")
    assert "our-vits16" in {r["model"] for r in run("embedstore", "models", "--json")}
    assert (
        "read 1 annotations"
        in subprocess.run(
            [sys.executable, "-m", "embedstore", "add", "asap", "--annotations", asap],
            capture_output=True,
            text=True,
            env=env,
            cwd=copy,
        ).stderr
    )
    run("embedstore", "add", "tiny", "--annotations", tiny.csv, "--slides", tiny.slides)
    model = ["--model", "our-vits16", "--weights", "our-vits16=random", "--patch-px", "32"]
    run("embedstore", "ingest", "tiny", *model)
    rows = run("probes", "run", "tiny", "--scheme", "five-fold", "--method", "lda", "--json")
    assert {(r["scheme"], r["method"], r["model"]) for r in rows} == {
        ("five-fold", "lda", "our-vits16")
    }
    assert sum(r["metric"] == "specificity" and r["value"] is not None for r in rows) == 5
    run("probes", "run", "tiny", "--scheme", "five-fold")
    words = ["--scheme", "five-fold", "--metric", "specificity", "--json"]
    assert {(r["a"], r["b"]) for r in run("probes", "compare", "tiny", *words)} == {
        ("lda:our-vits16", "uni:our-vits16")
    }
    run("probes", "report", "-o", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    for text in ("How much was annotated?", "five-fold", "lda", "our-vits16", "specificity"):
        assert text in page
    assert (tmp_path / "report" / "counts.csv").exists()
