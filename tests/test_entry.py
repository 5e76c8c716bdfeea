"""The start of a console script: what a signal becomes, wherever it arrives."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making.commands import ROOT

WITHIN_DUCKDB = """
import os, signal, duckdb, typer
from embedstore.terminal.entry import run_app

app = typer.Typer()

@app.command()
def main() -> None:
    con = duckdb.connect()
    con.create_function("stop", lambda x: os.kill(os.getpid(), signal.{name}) or x, ["INTEGER"], int)
    con.sql("select stop(1::integer)").fetchall()

run_app(app)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_query_ends_the_command_as_anywhere(how: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHIN_DUCKDB.format(name=how.name)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 128 + how
    assert "Traceback" not in done.stderr


WITHIN_AN_IMPORT = """
import time, typer
from embedstore.terminal.entry import run_app

app = typer.Typer()

@app.command()
def main() -> None:
    import slow
    time.sleep(20)
    print("not stopped")

run_app(app)
"""
SLOW = """
import os, signal, time
os.kill(os.getpid(), signal.{name})
time.sleep(0.2)
print("imported", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_an_import_waits_for_its_end(how: signal.Signals, tmp_path: Path) -> None:
    """PyTorch's C++ aborts the process where Python raises amid its import."""
    (tmp_path / "slow.py").write_text(SLOW.format(name=how.name))
    done = subprocess.run(
        [sys.executable, "-c", WITHIN_AN_IMPORT],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )
    assert done.returncode == 128 + how
    assert done.stdout == "imported\n"
    assert not done.stderr
