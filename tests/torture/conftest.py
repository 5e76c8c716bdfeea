"""The table of what was tried, printed at the end; under `make torture` with all seeds."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.torture.told import IS_FULL, SEED, Tally

_KEY = "torture"


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Tally]]:
    """Give a function that opens a row of the table; rows are told when the test ends."""
    rows: list[Tally] = []

    def opened(row: str) -> Tally:
        rows.append(Tally(row))
        return rows[-1]

    yield opened
    for t in rows:
        request.node.user_properties.append((_KEY, (t.row, t.tried, t.survived, t.what)))


def pytest_report_header() -> str:
    how = "all is tried" if IS_FULL else "a short part"
    return f"torture: {how}, TORTURE_SEED={SEED}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    rows: dict[str, list[int]] = {}
    said: dict[str, str] = {}
    reports = [r for kind in terminalreporter.stats.values() for r in kind]
    for report in [r for r in reports if getattr(r, "when", "") == "teardown"]:
        for name, value in report.user_properties:
            if name == _KEY:
                row, tried, survived, what = value
                said[row] = what or said.get(row, "")
                counts = rows.setdefault(row, [0, 0])
                counts[0] += tried
                counts[1] += survived
    if rows and IS_FULL:
        terminalreporter.section(f"torture, TORTURE_SEED={SEED}")
        for row, (tried, survived) in sorted(rows.items()):
            terminalreporter.write_line(
                f"{row:50} tried {tried:5,}  survived {survived:5,}  {said[row]}"
            )
