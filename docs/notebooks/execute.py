"""Run a notebook of this folder from its first cell and keep what it shows: `make notebooks`.

python docs/notebooks/execute.py [FILE ...]: each is run in an empty folder and written in its
place, outputs and all, with nothing in it that tells the machine or the time.
"""

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def executed(file: Path, folder: Path) -> Any:
    """Return a notebook as it is once its cells have run in a folder; raises where one fails."""
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata = {}
        outputs = [_timeless(o) for o in cell.get("outputs", ()) if not _is_blank(o)]
        if cell.cell_type == "code":
            cell.outputs = outputs
    return notebook


def _is_blank(output: Any) -> bool:
    """Whether an output is a bar of progress that has gone."""
    return output.output_type == "display_data" and not output.data.get("text/html", "x").strip()


def _timeless(output: Any) -> Any:
    for kind, text in output.get("data", {}).items():
        if isinstance(text, str) and kind.startswith("text/"):
            output.data[kind] = re.sub(r"0x[0-9a-f]{6,}", "0x", text)
    if "metadata" in output:
        output.metadata = {}
    return output


def main() -> None:
    """Run the notebooks named, or all of the folder."""
    for file in [Path(a) for a in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(file, Path(folder)), file)
        print(file)


if __name__ == "__main__":
    main()
