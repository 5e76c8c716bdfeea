"""The start of a console script: what a signal becomes, wherever it arrives."""

import signal
import subprocess
import sys

import pytest

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
