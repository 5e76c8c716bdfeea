"""What a machine does to a command: no room, no rights, signals, odd names, a clock that goes back."""

import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from embedstore.doctor import examine
from embedstore.store import Store, clock
from tests.making.commands import BIN, ROOT, Ran, call_command, outside
from tests.making.slides import write_csv
from tests.making.stores import query, query_of
from tests.torture.contents import contents, differences
from tests.torture.processes import Command, begin
from tests.torture.scenes import AS_M, Stage
from tests.torture.told import IS_FULL, SEED, Tally, amount, chance


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"))


def study(stage: Stage) -> list[tuple[object, ...]]:
    """The commands of a small study, in order."""
    return [
        stage.add(),
        ("embedstore", "ingest", "d", *AS_M),
        ("embedstore", "import", "d", "--model", "n", stage.vectors),
        ("probes", "run", "d", "--fold", "0", "--fold", "1"),
    ]


def in_words(command: Command) -> bool:
    """Whether a command ended well, or with the project's own error."""
    code = command.wait()
    said = code == 0 or (code == 1 and "error:" in command.err)
    return said and "Traceback" not in command.err and "panicked" not in command.err


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Give a file system of its own, of a size; skipped where none may be mounted."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


NO_ROOM = ("No space left", "space", "no store", "not finished", "no dataset", "has no embedding")
"""What is said where there is no room, or where for want of it nothing could be prepared."""


def test_a_full_disk_at_many_sizes(
    stage: Stage, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    """Every command says so or works; with room, the same ones end as if there had been."""
    row = tally("full disk")
    choice = chance("full")
    whole = contents(stage.states["run"])
    for k in range(amount(1, 10)):
        row.tried += 1
        kilobytes = int(60 * 2 ** choice.uniform(0, 8.5))
        with mounted(tmp_path / str(k), f"{kilobytes}k") as folder:
            store = folder / "s"
            for words in study(stage):
                command = begin([*words, "--store", store], tmp_path)
                assert in_words(command), f"{kilobytes} kB, {words}: {command.err}"
                if command.wait():
                    assert any(w in command.err for w in NO_ROOM), command.err
            remount(folder, "size=400m")
            for words in study(stage):
                begin([*words, "--store", store], tmp_path).done()
            found = contents(store)
            for table in ("annotations", "slides", "embeddings.m", "embeddings.n"):
                assert not differences({table: found[table]}, {table: whole[table]})
            left = [f.row() for f in examine(Store.open(str(store))) if f.check != "space"]
            assert not left
        row.survived += 1


def test_a_store_that_may_only_be_read(
    stage: Stage, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    row = tally("read-only store")
    with mounted(tmp_path / "ro", "200m") as folder:
        store = shutil.copytree(stage.states["run"], folder / "s")
        remount(folder, "ro")
        reading: list[tuple[object, ...]] = [
            ("embedstore", "status"),
            ("embedstore", "sql", "select count(*) from results"),
            ("embedstore", "neighbors", "d/a0.tiff/0", "--model", "m"),
            ("embedstore", "export", "d", "--model", "m", "--output", tmp_path / "m.npz"),
            ("embedstore", "doctor"),
            ("probes", "report", "d", "--output", tmp_path / "page"),
        ]
        for words in reading:
            row.tried += 1
            begin([*words, "--store", store], tmp_path).done()
            row.survived += 1
        for words in [
            stage.add(stage.moved),
            ("embedstore", "ingest", "d", *AS_M, "--views", "d4"),
            ("probes", "run", "d", "--fold", "2"),
            ("embedstore", "remove", "d", "--yes"),
            ("embedstore", "sql", "select 1", "--output", folder / "x.csv"),
        ]:
            row.tried += 1
            command = begin([*words, "--store", store], tmp_path)
            assert in_words(command), f"{words}: {command.err}"
            assert command.wait() == 1
            row.survived += 1
    assert contents(stage.states["run"])


def test_a_store_that_is_deleted_meanwhile(
    stage: Stage, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    row = tally("store deleted meanwhile")
    choice = chance("deleted")
    for k in range(amount(2, 12)):
        row.tried += 1
        base = ("added", "embedded")[k % 2]
        words = study(stage)[(1, 3)[k % 2]]
        store = shutil.copytree(stage.states[base], tmp_path / f"s{k}")
        command = begin([*words, "--store", store], tmp_path)
        command.wait_opened()
        time.sleep(choice.uniform(0, 0.8))
        shutil.rmtree(store, ignore_errors=True)
        assert in_words(command), command.err
        row.survived += 1


@pytest.mark.parametrize("gigabytes", [2, 3, 6] if IS_FULL else [3])
def test_a_limit_of_memory_harms_no_store(
    stage: Stage, tmp_path: Path, gigabytes: int, tally: Callable[[str], Tally]
) -> None:
    """A process that gets no memory may end as it will; the store is whole, the command goes on."""
    row = tally("memory limit")
    store = shutil.copytree(stage.states["added"], tmp_path / "s")

    limit = f'ulimit -c 0; ulimit -v {gigabytes * 2**20}; exec "$@"'
    for words in study(stage)[1:]:
        row.tried += 1
        full = [str(BIN / str(words[0])), *map(str, words[1:]), "--store", str(store)]
        env = {**outside(), "OMP_NUM_THREADS": "1"}
        subprocess.run(
            ["bash", "-c", limit, "limited", *full], capture_output=True, timeout=240, env=env
        )
        assert not [f.row() for f in examine(Store.open(str(store))) if f.check != "space"]
        begin([*words, "--store", store], tmp_path).done()
        row.survived += 1


def test_a_clock_that_goes_back_hides_nothing_new(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Callable[[str], Tally]
) -> None:
    """Vectors and results made after the clock went back stand, not those they replace."""
    row = tally("clock going back")
    real = clock.now
    for days in (1, 400):
        row.tried += 1
        store = shutil.copytree(stage.states["run"], tmp_path / str(days))
        twin = shutil.copytree(stage.states["run"], tmp_path / f"{days}-in-order")
        shown = []
        for uri, back in ((twin, 0), (store, days)):
            with monkeypatch.context() as patch:
                for place in (
                    "embedstore.store.store",
                    "embedstore.store",
                    "embedstore.embeddings.writer",
                ):
                    patch.setattr(f"{place}.now", lambda back=back: real() - timedelta(days=back))
                for place in (
                    *("embedstore.store.clock", "probes.scores.results", "probes.runs.outcomes"),
                    *("probes.splits.manifests", "probes.studies.compare"),
                ):
                    patch.setattr(f"{place}.now", lambda back=back: real() - timedelta(days=back))
                run = ("probes", "run", "d", "--model", "m", "--fold", "0", "--fold", "1")
                for words in (
                    stage.add(stage.moved),
                    ("embedstore", "ingest", "d", *AS_M),
                    run,
                    stage.add(stage.relabelled),
                    ("embedstore", "ingest", "d", *AS_M),
                    run,
                ):
                    done = call_command(*words, "--store", uri)
                    assert done.code == 0, done.err
            sql = "select run_id, metric, value from results where model = 'm' and group_by = 'annotation' order by all"
            shown.append(query_of(str(uri), sql))
        assert shown[0] == shown[1]
        row.survived += 1


PROGRESS = ("embedstore", "ingest", "d", *AS_M)


def on_terminal(words: Sequence[object], after: float, how: signal.Signals) -> tuple[int, bytes]:
    """Run a command on a terminal, send it a signal; return its code and what it wrote."""
    main, child = pty.openpty()
    command = [str(BIN / str(words[0])), *map(str, words[1:])]
    starts = f"import os,signal,sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv({command[0]!r}, {command!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", starts],
        stdin=child,
        stdout=child,
        stderr=child,
        env={**outside(), "TERM": "xterm", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    os.close(child)
    time.sleep(after)
    process.send_signal(how)
    said = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        said += part
    os.close(main)
    return process.wait(120), said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_restores_the_terminal(
    stage: Stage, tmp_path: Path, how: signal.Signals, tally: Callable[[str], Tally]
) -> None:
    row = tally(f"{how.name} at any moment")
    choice = chance("signal", how.name)
    for k in range(amount(2, 12)):
        row.tried += 1
        store = shutil.copytree(stage.states["added"], tmp_path / f"{how.name}-{k}")
        after = choice.uniform(0.3, 8)
        code, said = on_terminal([*PROGRESS, "--store", store], after, how)
        text = said.decode(errors="replace")
        assert code in (0, 128 + how), f"after {after:.2f} s: {code}\n{text}"
        assert "Traceback" not in text, f"after {after:.2f} s: {text}"
        assert text.count("\x1b[?25l") <= text.count("\x1b[?25h"), "the cursor is hidden still"
        assert not [f.row() for f in examine(Store.open(str(store))) if f.check != "space"]
        row.survived += 1


def shell(line: str, store: Path, **env: str) -> Ran:
    """Run a line of shell in which $EMBED, $PROBES and $STORE stand."""
    full = {
        **outside(),
        "EMBED": str(BIN / "embedstore"),
        "PROBES": str(BIN / "probes"),
        "STORE": str(store),
        **env,
    }
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=full, timeout=240)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace"))


STREAMS = {
    "head": '"$EMBED" sql "select * from predictions" --format csv --store "$STORE" | head -2',
    "head of a table": '"$EMBED" sql "select * from predictions" --store "$STORE" | head -1',
    "closed": '"$EMBED" status --store "$STORE" >&-',
    "both closed": '"$PROBES" run d --fold 2 --store "$STORE" >&- 2>&-',
    "full": '"$EMBED" sql "select * from predictions" --store "$STORE" > /dev/full',
    "full of JSON": '"$EMBED" status --json --store "$STORE" > /dev/full',
    "errors full": '"$EMBED" status --store "$STORE" 2> /dev/full',
    "no stdin": '"$EMBED" status --store "$STORE" <&-',
    "latin-1": 'PYTHONIOENCODING=latin-1 "$EMBED" sql "select \'μ 漢\' as a" --store "$STORE"',
    "LANG=C": 'LANG=C LC_ALL=C PYTHONUTF8=0 "$EMBED" sql "select \'μ 漢\' as a" --store "$STORE"',
    "no HOME": 'env -u HOME -u USER "$EMBED" status --store "$STORE"',
    "nearly no environment": 'env -i "$EMBED" status --store "$STORE"',
    "no TERM": 'env -u TERM "$EMBED" status --store "$STORE"',
    "narrow": 'COLUMNS=20 "$EMBED" status --store "$STORE"',
}


@pytest.mark.parametrize("name", STREAMS if IS_FULL else ["closed", "full", "LANG=C"])
def test_odd_streams_and_environments(
    stage: Stage, tmp_path: Path, name: str, tally: Callable[[str], Tally]
) -> None:
    row = tally("streams and environments")
    row.tried += 1
    store = shutil.copytree(stage.states["run"], tmp_path / "s")
    done = shell(STREAMS[name], store)
    assert "Traceback" not in done.err, done.err
    assert "Exception ignored" not in done.err, done.err
    assert done.code in (0, 1), (done.code, done.err)
    assert query_of(str(store), "select count(*) as n from results")[0]["n"] >= 1
    row.survived += 1


def test_a_user_whom_nobody_knows(
    stage: Stage, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    row = tally("unknown uid")
    row.tried += 1
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("only root can become another user here")
    folder = Path("/tmp") / f"embedstore-torture-{os.getpid()}"
    try:
        shutil.copytree(stage.states["embedded"], folder / "s")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 54321, 54321)
        line = (
            "cd /tmp && setpriv --reuid 54321 --regid 54321 --clear-groups env -u HOME -u USER "
            '"$PROBES" run d --fold 0 --store "$STORE"'
        )
        done = shell(line, folder / "s")
        if "ermission denied" in done.err and str(BIN) in done.err:
            row.tried -= 1
            pytest.skip("another user may not run what is installed here")
        assert done.code == 0, done.err
        row.survived += 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


ODD_NAMES = (
    "with space",
    "quote's",
    'double"quote',
    "semi;colon",
    "-leading-dash",
    "--all",
    "new\nline",
    "tab\there",
    "per%20cent",
    "a?b",
    "a#b",
    "[x]*",
    "{brace}",
    "$HOME",
    "`id`",
    "back\\slash",
    unicodedata.normalize("NFC", "é-ü-Å"),
    unicodedata.normalize("NFD", "é-ü-Å"),
    "漢字",
    "🔬",
    "x" * 200,
    "x" * 254,
    ".hidden",
    "a.b.c",
    "\u202eevil",
    "a::0",
)


def odd_names(names: Sequence[str], n: int) -> list[str]:
    """Names, and some put together of parts by chance."""
    choice = random.Random(SEED)
    parts = [" ", "'", '"', "é", "é", "-", "%", "?", "#", "\n", "a", "B", "漢", ";", "*", "|"]
    made = ["".join(choice.choices(parts, k=choice.randint(1, 9))).strip() for _ in range(n)]
    return list(dict.fromkeys([*names, *(m for m in made if m and m not in (".", ".."))]))


@pytest.mark.parametrize(
    "name", odd_names(ODD_NAMES, 8) if IS_FULL else ["quote's", "new\nline", "é"]
)
def test_names_of_everything(
    stage: Stage, tmp_path: Path, name: str, tally: Callable[[str], Tally]
) -> None:
    """As the name of a store's folder, a slide, a dataset, a label, a domain and a model at once."""
    row = tally("odd names")
    row.tried += 1
    rows = [dict(r) for r in stage.rows]
    slides = tmp_path / "slides"
    shutil.copytree(stage.slides, slides)
    of_slide = f"{name[:200]}.tiff"
    (slides / "a0.tiff").rename(slides / of_slide)
    for r in rows:
        r["slide"] = of_slide if r["slide"] == "a0.tiff" else r["slide"]
        r["label"] = f"{name} 1" if r["label"] == rows[0]["label"] else r["label"]
        r["domain"] = name if r["domain"] == "a" else r["domain"]
    table = write_csv(tmp_path / "cells.csv", rows)
    folder = tmp_path / "stores"
    folder.mkdir()
    store = folder / name
    files = (f"--annotations={table}", f"--slides={slides}", f"--positive={name} 1")
    first = begin(("embedstore", "add", *files, f"--store={store}", "--", name), tmp_path)
    assert in_words(first), first.err
    if first.wait() == 1:  # a name that is refused, in words, leaves nothing behind
        assert not store.is_dir() or not any(store.rglob("*.lance/data/*")), first.err
        row.survived += 1
        return
    for words in (
        (
            "embedstore",
            "ingest",
            *AS_M[:2],
            f"--as={name}",
            *AS_M[4:],
            f"--store={store}",
            "--",
            name,
        ),
        ("probes", "run", "--fold", "0", f"--store={store}", "--", name),
        ("probes", "report", f"--output={tmp_path / 'page'}", f"--store={store}"),
    ):
        command = begin(words, tmp_path)
        assert in_words(command), f"{words}: {command.err}"
        if command.wait():
            assert words[1] == "ingest", f"{words}: {command.err}"
            break  # a name that cannot be a model's, in words
    opened = Store.open(str(store))
    assert len(query(opened, "from annotations")) == len(rows)
    assert not [f.row() for f in examine(opened)]
    row.survived += 1


def test_interrupted_while_it_imports_a_command_ends_with_130(
    tally: Callable[[str], Tally],
) -> None:
    """The quarter of a second in which a command has not begun yet."""
    row = tally("SIGINT while importing")
    choice = chance("start")
    script = "print('begins', flush=True); import cli; cli.embedstore()"
    for _ in range(amount(3, 20)):
        row.tried += 1
        with subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import signal; signal.signal(2, signal.default_int_handler); {script}",
            ],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(choice.uniform(0.01, 0.25))
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        # Without a command, what is shown is the help, with 2.
        assert process.returncode in (130, 2), err.decode()
        assert b"Traceback" not in err, err.decode()
        row.survived += 1
