"""The house rules that a machine can hold: directions of imports, sizes, boundaries."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.making.commands import ROOT

PACKAGES = ("embedstore", "probes", "e2e", "cli")
FILES = sorted([ROOT / "cli.py", *(f for p in PACKAGES[:3] for f in (ROOT / p).rglob("*.py"))])
LITERAL = {"embedstore/models/registry.py", "probes/reports/published.py"}
"""Tables of literals, which may be as long as they are."""
MAX_LINES, MAX_FUNCTION_LINES = 300, 60
MAX_ROOMS = {"embedstore": 20, "probes": 12, "e2e": 12}
# Who may import a foreign system: one file each, or one wing.
BOUNDARIES = {
    "openslide": {"embedstore/slides/slide.py"},
    "timm": {"embedstore/models/loading.py"},
    "lancedb": {"embedstore/store/store.py", "embedstore/store/indexes.py"},
    "ray": {"embedstore/cluster.py"},
    "lance": {"embedstore/store/store.py"},
    "duckdb": {"embedstore/store/sql.py"},
    "huggingface_hub": {"embedstore/models/checkpoints.py"},
    "typer": {"embedstore/terminal", "embedstore/commands", "probes/commands", "e2e/commands"},
    "rich": {"embedstore/terminal"},
    "tifffile": {"embedstore/demo/files.py"},
    "h5py": {"embedstore/exchange/h5.py", "embedstore/files/packed.py"},
    "peft": {"e2e/network.py"},
    "matplotlib": {"probes/reports/plots.py", "probes/reports/panels.py"},
    "pandas": {"embedstore/python/rows.py"},
    "anndata": {"embedstore/python/vectors.py"},
    "IPython": {"embedstore/python/progress.py"},
    "embedding_atlas": {"embedstore/reading/atlas.py"},
    "umap": {"embedstore/reading/projection.py"},
    "jinja2": {"embedstore/files/template.py"},
    "markupsafe": {"embedstore/files/template.py"},
}
# Which wing or room of a package may import which other: the architecture. Arrows go down only.
ARROWS = {
    "embedstore": {
        "errors": "",
        "files": "errors",
        "archives": "errors files",
        "slides": "errors files",
        "models": "errors",
        "demo": "errors",
        "annotations": "errors files",
        "terminal": "cluster errors files",
        "cluster": "errors",
        "store": "errors files slides",
        "embed": "slides",
        "doctor": "errors files slides store",
        "reading": "embeddings errors files models slides store",
        "embeddings": "errors models slides store",
        "add": "annotations archives errors files slides store",
        "exchange": "annotations embeddings errors files store",
        "ingest": "cluster embed embeddings errors files models slides store",
        "python": "add annotations archives cluster demo doctor errors exchange files ingest models reading store "
        "terminal",
        "commands": "add annotations archives demo doctor errors exchange files ingest models reading store "
        "terminal",
    },
    "probes": {
        "solver": "",
        "splits": "",
        "slices": "splits",
        "scores": "splits",
        "recipes": "scores splits",
        "methods": "slices solver",
        "reports": "methods recipes scores splits studies",
        "runs": "methods scores slices splits",
        "studies": "methods recipes runs scores slices splits",
        "python": "methods recipes reports runs scores slices splits studies",
        "commands": "methods recipes reports runs scores slices splits studies",
    },
    "e2e": {
        "recipe": "",
        "data": "",
        "network": "recipe",
        "folder": "recipe",
        "augment": "recipe",
        "train": "augment data folder network recipe",
        "trained": "data folder network recipe train",
        "run": "data folder recipe train trained",
        "spread": "run",
        "predict": "data folder network run train",
        "paper": "recipe run",
        "commands": "paper predict recipe run spread",
    },
}


def imports(path: Path) -> Iterator[str]:
    """All names a file imports, dotted, down to the last: also those within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{a.name}" for a in node.names)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def is_entry(path: Path) -> bool:
    """Whether a file only starts a command (`python -m embedstore`), as cli.py does."""
    return path.name == "__main__.py"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_run_one_way_and_through_the_boundaries(path: Path) -> None:
    mine = PACKAGES.index(path.relative_to(ROOT).parts[0].removesuffix(".py"))
    for name in imports(path):
        top = name.split(".")[0]
        if top in PACKAGES and not is_entry(path):
            assert PACKAGES.index(top) <= mine, f"{path.name} imports {name}"
            assert top != "cli", f"{path.name} imports the command line"
        if top in BOUNDARIES:
            allowed = BOUNDARIES[top]
            here = relative(path)
            assert any(
                here == a or here.startswith(f"{a}/") or here == f"{a}.py" for a in allowed
            ), f"{here} imports {name} past its boundary"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_between_wings_the_arrows_go_one_way(path: Path) -> None:
    package, *rest = path.relative_to(ROOT).with_suffix("").parts
    if not rest or rest[0] in ("__init__", "__main__"):
        return
    allowed = {rest[0], *ARROWS[package][rest[0]].split()}
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == package and len(parts) > 1:
            assert parts[1] in allowed, f"{relative(path)} imports {name}"


@pytest.mark.parametrize("package", ARROWS)
def test_the_table_of_arrows_is_the_architecture(package: str) -> None:
    """It names every room there is and none else, has no circle, and fits one glance."""
    arrows = {room: set(to.split()) for room, to in ARROWS[package].items()}
    there = {
        p.stem for p in (ROOT / package).iterdir() if p.name[0] not in "_." and p.name != "py.typed"
    }
    assert set(arrows) == there
    assert len(there) <= MAX_ROOMS[package]
    done: set[str] = set()
    while len(done) < len(arrows):
        ready = {room for room, to in arrows.items() if room not in done and to <= done}
        assert ready, f"a circle among {sorted(set(arrows) - done)}"
        done |= ready


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert relative(path) in LITERAL or len(text.splitlines()) <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name
    assert path.stem not in ("utils", "common", "base", "helpers", "manager")


def test_no_line_is_exempt_from_the_formatter() -> None:
    mark = "# fmt" + ":"
    for folder in (*PACKAGES[:3], "tests", "benchmarks", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            assert mark not in path.read_text(), path


def test_no_test_imports_another() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        for name in imports(path):
            assert not re.search(r"^tests\.(.*\.)?test_", name), f"{path} imports {name}"


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return {m.split(".")[0] for m in done.stdout.split()}


def test_the_command_line_imports_nothing_heavy() -> None:
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


def test_the_compute_core_knows_no_storage() -> None:
    core = (
        "import embedstore.embed, embedstore.models.loading, embedstore.models.embedder, "
        "embedstore.slides.patches, embedstore.slides.slide, embedstore.slides.reading"
    )
    assert not loaded_by(core) & {"lancedb", "lance", "duckdb", "pyarrow"}
    probe = "import probes.methods.linear, probes.scores.metrics, probes.splits.draw"
    assert not loaded_by(probe) & {"lancedb", "lance", "duckdb", "torch"}


def test_sql_and_probes_need_no_torch() -> None:
    assert "torch" not in loaded_by("import embedstore.store.sql, probes.runs")
