"""docs/reliability.md and SECURITY.md: each line names a test that is there."""

import ast
import re

import pytest

from tests.making.commands import ROOT

PAGE = (ROOT / "docs/reliability.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (?!what |---)", line)]


def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED)))
def test_what_is_named_is_there(path: str, name: str) -> None:
    assert name in functions_of(path)


def test_every_line_names_its_test() -> None:
    assert len(ROWS) > 20
    for row in ROWS:
        assert re.search(r"`tests/[\w/]+\.py::\w+`", row), row


def test_every_test_of_the_torture_suite_is_on_the_page() -> None:
    named = {name for _, name in NAMED}
    for file in sorted((ROOT / "tests/torture").glob("test_*.py")):
        for name in functions_of(f"tests/torture/{file.name}"):
            assert not name.startswith("test_") or name in named, f"{file.name}::{name}"
