"""The code blocks of the pages in docs/, and their command lines."""

import re
import shlex

from tests.making.commands import ROOT, call_command

DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def ok(line: str) -> str:
    """What a command line prints, in this process; it must end well."""
    done = call_command(*shlex.split(line))
    assert done.code == 0, f"{line}\n{done.err}"
    return done.out + done.err
