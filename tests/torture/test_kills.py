"""SIGKILL at random moments of every verb that writes, on a disk and on S3."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.making.s3 import environment, s3_server
from tests.torture.contents import Contents, contents, differences, partly
from tests.torture.processes import Command, begin
from tests.torture.scenes import Scene, Stage, fetched
from tests.torture.told import IS_FULL, Tally, amount, chance

MOMENTS = amount(1, 6)
"""Kills of each verb on a disk; on S3, where a command takes longer, half as many."""

NAMES = (
    *("add", "add again", "ingest", "ingest of views", "import", "split", "manifest import"),
    *("run", "run of knn", "compare", "gap", "robustness", "likeness", "shots", "fusion", "raters"),
    *("rescore", "copies", "remove", "remove all", "doctor", "e2e run"),
    *("doubtful", "export", "sql", "report"),
)
SHORT = ("add again", "ingest", "run", "e2e run")
"""What is in `make test`."""

ON_S3 = ("add", "ingest", "import", "split", "run", "compare", "remove", "e2e run", "gap", "export")
SHORT_ON_S3 = ("run",)


@dataclass
class Undisturbed:
    """What a command leaves when nothing happens, and how long it takes from the store's opening."""

    before: Contents
    after: Contents
    twice: Contents
    output: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        env = environment(url, tmp_path_factory.mktemp("cache"))
        for name, value in env.items():
            patch.setenv(name, value)
        yield env


def start(scene: Scene, where: str, folder: Path) -> Command:
    words = [str(w).format(out=folder) for w in scene.words]
    return begin([*words, "--store", where], folder)


def written(scene: Scene, folder: Path) -> dict[str, bytes]:
    """Return the files that a scene writes beside its store, by name; none that is half."""
    path = folder / (scene.output or "none")
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {p.name: p.read_bytes() for p in files if not p.name.endswith(".part")}


def undisturbed(stage: Stage, scene: Scene, where: str, folder: Path) -> Undisturbed:
    stage.begin(scene, where)
    before = contents(fetched(where, folder / "before"))
    command = start(scene, where, folder)
    command.wait_opened()
    started = time.monotonic()
    command.done()
    seconds = time.monotonic() - started
    after = contents(fetched(where, folder / "after"))
    output = written(scene, folder)
    start(scene, where, folder).wait()  # as after a kill that came when all was done
    twice = contents(fetched(where, folder / "twice"))
    return Undisturbed(before, after, twice, output, seconds)


def survives(
    stage: Stage, scene: Scene, whole: Undisturbed, where: str, folder: Path, at: float
) -> None:
    """Kill a command at a part of its time, look, and give it again."""
    stage.begin(scene, where)
    command = start(scene, where, folder)
    command.wait_opened()
    command.process.join(at * whole.seconds)
    command.process.kill()
    command.process.join()
    now = contents(fetched(where, folder / "now"))
    assert not (odd := partly(now, whole.before, whole.after)), "\n".join(odd[:5])
    for name, content in written(scene, folder).items():
        if scene.name != "report":  # a page has the time it was made at
            assert content == whole.output[name]
    again = start(scene, where, folder)
    code = again.wait()
    is_gone = "has nothing of model" in again.err or "no dataset 'd'" in again.err
    assert code == 0 or (scene.name.startswith("remove") and is_gone), again.err
    end = contents(fetched(where, folder / "end"))
    left = differences(end, whole.after)
    assert not left or not differences(end, whole.twice), "\n".join(left[:5])
    assert written(scene, folder).keys() == whole.output.keys()


def killed(
    stage: Stage, name: str, place: Callable[[str], str], folder: Path, n: int, tally: Tally
) -> None:
    scene = next(s for s in stage.scenes() if s.name == name)
    (folder / "0").mkdir(parents=True)
    whole = undisturbed(stage, scene, place("whole"), folder / "0")
    random = chance("kill", name, "://" in place("x"))
    for k in range(1, n + 1):
        mine = folder / str(k)
        mine.mkdir()
        tally.tried += 1
        at = random.random()
        try:
            survives(stage, scene, whole, place(str(k)), mine, at)
        except AssertionError as e:
            raise AssertionError(f"{name} killed at {at:.3f} of {whole.seconds:.1f} s: {e}") from e
        tally.survived += 1


@pytest.mark.parametrize("name", NAMES if IS_FULL else SHORT)
def test_a_killed_command_is_finished_by_the_next(
    stage: Stage, name: str, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    def place(of: str) -> str:
        return str(tmp_path / "stores" / of)

    (tmp_path / "stores").mkdir()
    killed(stage, name, place, tmp_path, MOMENTS, tally("kills, disk"))


@pytest.mark.parametrize("name", ON_S3 if IS_FULL else SHORT_ON_S3)
def test_a_killed_command_is_finished_by_the_next_on_s3(
    stage: Stage,
    s3: dict[str, str],
    name: str,
    tmp_path: Path,
    tally: Callable[[str], Tally],
) -> None:
    def place(of: str) -> str:
        return f"s3://bkt/{name.replace(' ', '-')}-{os.getpid()}-{of}"

    killed(stage, name, place, tmp_path, amount(1, 5), tally("kills, S3"))
