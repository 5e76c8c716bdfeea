"""The commands, called in this process or run as real ones."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    pass


ROOT = Path(__file__).resolve().parents[2]


SHARED = ROOT.parent / "shared"


BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str

    def json(self) -> list[dict[str, Any]]:
        """The rows it printed."""
        assert self.code == 0, self.err
        rows: list[dict[str, Any]] = json.loads(self.out)
        return rows


def outside() -> dict[str, str]:
    """The environment of a process of its own: with what threads it likes, as for a user.

    Beside other workers of the suite it has one: threads that wait for a core would spin.
    """
    is_alone = "PYTEST_XDIST_WORKER" not in os.environ
    return {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS" or not is_alone}


def run_command(*words: object, env: dict[str, str] | None = None) -> Ran:
    """Run a console script of this environment as a real process."""
    command = [str(BIN / str(words[0])), *map(str, words[1:])]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env={**outside(), **(env or {})}
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def call_command(*words: object, env: dict[str, str] | None = None) -> Ran:
    """Call what a console script calls, in this process: no start of Python, no imports.

    `test_a_call_shows_what_a_process_shows` holds that both are one.
    """
    import cli

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", list(map(str, words)))
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        try:
            getattr(cli, str(words[0]))()
        except SystemExit as e:
            code = e.code or 0
    assert isinstance(code, int)
    return Ran(code, *(f.buffer.getvalue().decode() for f in (out, err)))
