"""A training that is killed or interrupted goes on and ends with the same numbers."""

import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.run import Listener, run
from embedstore.add import AddOptions, add
from embedstore.store import Store
from probes.scores.metrics import METRICS
from probes.splits.spec import ManifestSpec
from tests.making.commands import run_command
from tests.making.held import Hold, start_held
from tests.making.slides import TinyDataset
from tests.making.stores import query
from tests.making.training import OPTIONS

SAVED = "e2e.folder:RunFolder.write_last"
"""What is called at the end of each epoch, when all that it takes to go on is written."""


def test_force_goes_on_after_an_interruption(store: Store) -> None:
    first = run(store, ManifestSpec("tiny"), OPTIONS)
    forced = replace(OPTIONS, force=True)
    lines: list[str] = []

    def stop(line: str) -> None:
        if "epoch 1/2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(store, ManifestSpec("tiny"), forced, Listener(line=stop))
    again = run(store, ManifestSpec("tiny"), forced, Listener(line=lines.append))
    assert not any("epoch 1/2" in line for line in lines)
    assert any("epoch 2/2" in line for line in lines)
    assert [r.value for r in again.rows] == [r.value for r in first.rows]


def test_killed_at_any_moment_the_same_command_ends_with_the_same_numbers(
    place: tuple[TinyDataset, Store], tmp_path: Path
) -> None:
    tiny, _ = place
    words = [
        "--backbone",
        "test_resnet",
        "--weights",
        "random",
        "--epochs",
        "6",
        "--min-steps",
        "60",
        "--batch-size",
        "8",
        "--patch-px",
        "48",
        "--fold",
        "0",
        "--json",
    ]
    found = {}
    for what in ("whole", "killed"):
        uri = str(tmp_path / what)
        add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
        command: list[object] = ["e2e", "run", "tiny", *words, "--store", uri]
        for after in (1, 2) if what == "killed" else ():
            hold = Hold(SAVED, n=after)
            process = start_held(command, hold, tmp_path / "mark", stderr=subprocess.DEVNULL)
            process.kill()
            process.wait(timeout=60)
            assert query(Store.open(uri), "from results") == []
        done = run_command("e2e", "run", "tiny", *words, "--store", uri)
        found[what] = [r["value"] for r in done.json()]
        assert ("epoch 1/6" in done.err) == (what == "whole")  # the other went on
        assert "epoch 6/6" in done.err
    assert found["whole"] == found["killed"]
    assert len(found["whole"]) == len(METRICS)


def test_ctrl_c_says_how_to_go_on(place: tuple[TinyDataset, Store], tmp_path: Path) -> None:
    _, store = place
    words = ["--backbone", "test_resnet", "--weights", "random", "--epochs", "50"]
    words += ["--min-steps", "500", "--patch-px", "64", "--store", store.uri]
    command: list[object] = ["e2e", "run", "tiny", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = start_held(command, Hold(SAVED), tmp_path / "mark", **pipes)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command does the rest" in said
