"""Write docs/commands.md from --help, docs/api.md from docstrings, and the table of models.

Run it by `make docs`. `tests/house/test_docs.py` fails where the files are not what it writes.
"""

import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typer import Typer

DOCS = Path(__file__).resolve().parent
WIDTH = "100"
COMMANDS = DOCS / "commands.md"
API = DOCS / "api.md"
NOTEBOOK = DOCS / "notebook.md"
WEIGHTS = DOCS / "data-and-weights.md"
START, END = "<!-- models: written by generate.py -->", "<!-- end of models -->"
HEAD = """# Commands and options

Written by `make docs` from what `--help` prints; change a help text beside its command, not here.
"""


def commands() -> str:
    """Return docs/commands.md: a section a command, in the order of `--help`."""
    os.environ["COLUMNS"] = WIDTH
    from typer.main import get_command

    import cli

    parts = [HEAD]
    for name in ("embedstore", "probes", "e2e"):
        app = getattr(cli, f"{name}_app")
        parts.append(f"## {name}\n\n{_help(app, name, [])}")
        for command in getattr(get_command(app), "commands", {}):
            parts.append(f"### {name} {command}\n\n{_help(app, name, [command])}")
    return "\n".join(parts)


def _help(app: "Typer", name: str, words: list[str]) -> str:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, [*words, "--help"], prog_name=name)
    if result.exit_code:
        raise SystemExit(f"{name} {' '.join(words)} --help ended with {result.exit_code}")
    # Where an environment forces colours, they are no part of the page.
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return "```text\n" + "\n".join(lines).strip("\n") + "\n```\n"


API_HEAD = """# Python, call by call

Written by `make docs` from docstrings; [From Python](python.md) shows them at work. A call has the
name and the options of its command, and what an option means is told by the command's `--help`
([Commands and options](commands.md)). `Rows` is a pandas DataFrame.
"""


def api() -> str:
    """Return docs/api.md: the methods of a store, the verbs of probes, the estimators."""
    import probes
    from embedstore import Embeddings, Rows, Store

    parts = [API_HEAD]
    for title, of in (("Store", Store), ("Embeddings", Embeddings), ("Rows", Rows)):
        parts.append(f"## embedstore.{title}\n\n{inspect.getdoc(of)}\n")
        names = [n for n in _in_order(of) if callable(getattr(of, n)) and n[0] != "_"]
        parts += [_call(f"{title}.{n}", getattr(of, n)) for n in names]
    parts.append("## probes\n")
    for name in probes.__all__:
        parts.append(_call(f"probes.{name}", getattr(probes, name)))
    return "\n".join(parts)


def _in_order(of: type) -> list[str]:
    """Return the names of a class of ours and of what it is made of, as they are written."""
    ours = [c for c in reversed(of.__mro__) if c.__module__.startswith("embedstore")]
    return list(dict.fromkeys(name for c in ours for name in vars(c)))


def _call(name: str, function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    shown = [
        str(p.replace(annotation=inspect.Parameter.empty))
        for p in signature.parameters.values()
        if p.name != "self"
    ]
    names = [p.name for p in signature.parameters.values() if p.name != "self"]
    keyword = [
        p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    if keyword:
        shown.insert(names.index(keyword[0]), "*")
    text = f"{name}({', '.join(shown)})"
    lines = text if len(text) <= int(WIDTH) else f"{name}(\n    " + ",\n    ".join(shown) + ",\n)"
    return f"### {name}\n\n```text\n{lines}\n```\n\n{inspect.getdoc(function)}\n"


NOTEBOOK_HEAD = """# In a notebook

Written by `make docs` from [the notebook](notebooks/python.ipynb), with what its cells showed when
`make notebooks` ran them.
"""


def notebook() -> str:
    """Return docs/notebook.md: the cells of the notebook and what each shows."""
    parts = [NOTEBOOK_HEAD]
    for cell in json.loads((DOCS / "notebooks" / "python.ipynb").read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            # The page has a title of its own.
            parts.append(re.sub(r"^# .*\n+", "", source) + "\n")
            continue
        parts.append(f"```python\n{source}\n```\n")
        parts += [_shown(output) for output in cell["outputs"]]
    return "\n".join(parts)


def _shown(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        html = re.sub(r"<style scoped>.*?</style>\n?", "", "".join(data["text/html"]), flags=re.S)
        html = html.replace(' border="1" class="dataframe"', "")
        return re.sub(r"\n\s*", "\n", html).strip() + "\n"
    if "image/png" in data:
        return (
            f'<img alt="figure" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">\n'
        )
    return f"```text\n{''.join(data.get('text/plain', output.get('text', ''))).strip()}\n```\n"


def models() -> str:
    """Return the table of models: where each one's weights lie, under which terms, and what of."""
    from embedstore.models.pins import PINS, Pin
    from embedstore.models.registry import REGISTRY

    heads = (
        "model",
        "hub repository, or package",
        "file",
        "pinned to",
        "licence",
        "gated",
        "trained at, um/px",
        "trained on",
        "read only in code",
    )
    rows = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, e in REGISTRY.items():
        where = e.hub if e.default_weights == "hub" else e.default_weights
        pin = PINS.get(name, Pin(""))
        file = e.hub_file or pin.file
        cells = [
            f"`{name}`",
            f"`{where}`",
            f"`{file}`" if file else "",
            f"{pin.revision[:8]}{'' if pin.sha256 else ' (no digest)'}" if pin.revision else "",
            e.licence,
            "yes" if e.gated else "",
            e.expected_mpp,
            ", ".join(e.corpora),
            "" if e.verified else "yes",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def with_models(page: str) -> str:
    """Return a page with the table of models between its two marks."""
    before, rest = page.split(START)
    return before + START + "\n" + models() + "\n" + END + rest.split(END)[1]


def main() -> None:
    """Write the files."""
    sys.path.insert(0, str(DOCS.parent))
    COMMANDS.write_text(commands(), encoding="utf-8")
    API.write_text(api(), encoding="utf-8")
    NOTEBOOK.write_text(notebook(), encoding="utf-8")
    WEIGHTS.write_text(with_models(WEIGHTS.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
