"""The house rules that a machine can hold: directions of imports, sizes, boundaries."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("embedstore", "probes", "e2e", "cli")
FILES = sorted([ROOT / "cli.py", *(f for p in PACKAGES[:3] for f in (ROOT / p).glob("*.py"))])
MAX_LINES, MAX_FUNCTION_LINES = 350, 60
# Who may import a foreign system: one file each (and the demonstration's writer for tifffile).
BOUNDARIES = {
    "openslide": {"slides.py"},
    "timm": {"models.py"},
    "lancedb": {"store.py"},
    "duckdb": {"query.py"},
    "huggingface_hub": {"checkpoints.py"},
    "typer": {"cli.py"},
    "rich": {"cli.py"},
    "tifffile": {"demo_files.py"},
    "h5py": {"read_h5.py"},
    "peft": {"network.py"},
    "matplotlib": {"plots.py"},
    "jinja2": {"page.py"},
    "markupsafe": {"page.py"},
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way_and_through_the_boundaries(path):
    mine = PACKAGES.index(path.relative_to(ROOT).parts[0].removesuffix(".py"))
    for name in imports(path):
        top = name.split(".")[0]
        if top in PACKAGES:
            assert PACKAGES.index(top) <= mine, f"{path.name} imports {name}"
            assert top != "cli", f"{path.name} imports the command line"
        if top in BOUNDARIES:
            assert path.name in BOUNDARIES[top], f"{path.name} imports {name} past its boundary"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    if path.name != "cli.py":
        assert len(text.splitlines()) <= MAX_LINES
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name
    assert path.stem not in ("utils", "common", "base", "helpers", "manager")


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return {m.split(".")[0] for m in done.stdout.split()}


def test_the_command_line_imports_nothing_heavy():
    assert not loaded_by("import cli") & {
        "torch",
        "timm",
        "lancedb",
        "duckdb",
        "sklearn",
        "scipy",
        "matplotlib",
        "jinja2",
    }


def test_the_compute_core_knows_no_storage():
    core = "import embedstore.embed, embedstore.models.loading, embedstore.slides.patches, embedstore.slides.slide"
    assert not loaded_by(core) & {"lancedb", "lance", "duckdb", "pyarrow"}
    probe = "import probes.methods.linear, probes.scores.metrics, probes.splits.draw"
    assert not loaded_by(probe) & {"lancedb", "lance", "duckdb", "torch"}


def test_sql_and_probes_need_no_torch():
    assert "torch" not in loaded_by("import embedstore.store.sql, probes.run")
