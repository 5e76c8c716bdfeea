"""The notebooks of docs/ run from an empty folder and show what they show."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.making.pages import DOCS

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def execute() -> Any:
    spec = importlib.util.spec_from_file_location("execute", DOCS / "notebooks" / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(cells: list[Any]) -> list[list[str]]:
    """What cells show, a list a cell: kinds of output and their words; numbers may differ."""
    found = []
    for cell in cells:
        said = []
        for output in cell.get("outputs", ()):
            of_text = sorted(k for k in output.get("data", {}) if k.startswith("text/"))
            texts = [*(output["data"][k] for k in of_text), output.get("text", "")]
            text = " ".join("".join(t) for t in texts)
            words = re.findall(r"[a-z_]{3,}", re.sub(r"\b[0-9a-f]{16}\b", "", text))
            said.append(" ".join([output["output_type"], *sorted(output.get("data", {})), *words]))
        found.append(said)
    return found


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda f: f.name)
def test_a_notebook_shows_what_it_shows(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBEDSTORE_URI", raising=False)
    kept = json.loads(file.read_text())["cells"]
    again = execute().executed(file, tmp_path)
    assert shown(json.loads(json.dumps(again.cells))) == shown(kept)
    assert not re.search(r"/(home|root|work|tmp)/", file.read_text()), "a path of a machine"
    assert (tmp_path / "report" / "index.html").is_file()
