"""The lock: what is installed is what `constraints.txt` pins, down to the last dependency."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.making.commands import ROOT

OURS = "mitosis-embedstore"
EXTRAS = ("", "anndata", "demo", "dev", "explore", "lora", "ray")
OF_PYTHON = {"pip", "setuptools"}
"""What a new environment of Python has already."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    named = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonical(name): pinned.strip() for name, pinned in named}


def installed() -> dict[str, str]:
    """All that this project needs, directly or not, as it is installed here."""
    found: dict[tuple[str, str], str] = {}
    waiting = [(OURS, extra) for extra in EXTRAS]
    while waiting:
        name, extra = waiting.pop()
        key = (canonical(name), extra)
        if key in found:
            continue
        try:
            found[key] = version(name)
        except PackageNotFoundError:
            continue
        for text in requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed.name, e) for e in (*needed.extras, "")]
    return {name: of for (name, _), of in found.items()}


def test_every_dependency_is_pinned_and_installed_as_pinned() -> None:
    locked, here = pins(), installed()
    assert len(here) > 80
    wrong = {
        name: (of, locked.get(name))
        for name, of in here.items()
        if name not in OF_PYTHON | {OURS} and locked.get(name) != of
    }
    if wrong and Path(sys.prefix) != ROOT / ".venv":
        pytest.skip(f"not the environment of `make install`: {sorted(wrong)[:5]}")
    assert not wrong, f"installed, pinned: {wrong}"


def test_what_is_installed_fits_together() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_no_pin_is_loose_and_none_is_of_an_address() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.+!-]+", line), line
