"""Damaged files of every format: read, or refused in words."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.making.commands import ROOT


def test_no_damaged_file_ends_in_a_traceback(tmp_path: Path) -> None:
    """A few of each reader's, the same ones each time; benchmarks/mutants.py tries many."""
    told = tmp_path / "told.json"
    words = [
        sys.executable,
        "benchmarks/mutants.py",
        "--n",
        "4",
        "--seed",
        "7",
        "--json",
        str(told),
    ]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = json.loads(told.read_text())
    assert counts["mutants"] >= 4 * 6
    assert counts["tracebacks"] == 0, done.stdout
