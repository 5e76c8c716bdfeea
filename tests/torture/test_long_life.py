"""A store after a thousand small commands, and a store at another place."""

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embedstore.doctor import examine
from embedstore.store import Store
from embedstore.store.tidy import EVERY
from tests.making.commands import call_command
from tests.making.slides import write_csv
from tests.making.stores import query_of
from tests.torture.contents import contents, differences
from tests.torture.scenes import AS_M, Stage
from tests.torture.told import IS_FULL, Tally, amount, chance

ROUNDS = amount(4, 100)
"""Of ten commands each."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"))


def on_disk(store: Path) -> tuple[int, float, int, int]:
    """Files, megabytes, and the most versions and fragments that any table has."""
    files = [p for p in store.rglob("*") if p.is_file()]
    versions = [len(list((t / "_versions").glob("*.manifest"))) for t in store.glob("*.lance")]
    opened = Store.open(str(store))
    fragments = [opened.stats(name)["n_fragments"] for name in opened.tables()]
    return len(files), sum(p.stat().st_size for p in files) / 1e6, max(versions), max(fragments)


@pytest.mark.timeout(1800 if IS_FULL else 600)
def test_a_thousand_small_commands_leave_a_store_as_it_was(
    stage: Stage, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    row = tally(f"{10 * ROUNDS} small commands")
    choice, store = chance("life"), shutil.copytree(stage.states["run"], tmp_path / "s")
    rows, seconds, sizes = [dict(r) for r in stage.rows], list[float](), []
    usual = [
        ("probes", "run", "d", "--fold", "0"),
        ("probes", "compare", "d", "--a", "uni:m", "--b", "uni:n"),
        ("probes", "gap", "d", "--model", "m"),
        ("embedstore", "neighbors", "d/a0.tiff/0", "--model", "m"),
        ("embedstore", "sql", "select model, count(*) from embeddings group by all"),
        ("embedstore", "status", "d"),
    ]
    for n in range(ROUNDS):
        for k in choice.sample(range(1, len(rows)), 3):  # three cells move a little
            rows[k]["x"] = float(rows[k]["x"]) + 1
        table = write_csv(tmp_path / "cells.csv", rows)
        out = tmp_path / "v.npz"
        started = time.monotonic()
        for words in (
            stage.add(table),
            ("embedstore", "ingest", "d", *AS_M),
            ("embedstore", "export", "d", "--model", "m", "--overwrite", "--output", out),
            ("embedstore", "import", "d", "--model", "n", out),
            *(w for w in usual if w[1] != "gap" or n % 5 == 0),
            *((("probes", "split", "d", "--seed", str(n % 7)),) if n % 5 else ()),
        ):
            row.tried += 1
            done = call_command(*words, "--store", store)
            assert done.code == 0, f"round {n}, {words}: {done.err}"
            row.survived += 1
        seconds.append(time.monotonic() - started)
        sizes.append(on_disk(store))
        assert sizes[-1][2] <= EVERY + 12, f"round {n}: {sizes[-1][2]} versions of a table"
        assert sizes[-1][3] <= EVERY + 12, f"round {n}: {sizes[-1][3]} fragments of a table"
    early, late = sizes[ROUNDS // 10 + 1], sizes[-1]
    medians = [
        statistics.median(part) for part in (seconds[1 : 1 + ROUNDS // 4], seconds[-ROUNDS // 4 :])
    ]
    row.what = (
        f"ten commands {medians[0]:.2f} s, at last {medians[1]:.2f} s; "
        f"files {early[0]} -> {late[0]}, MB {early[1]:.1f} -> {late[1]:.1f}, "
        f"versions of a table at most {max(s[2] for s in sizes)}, fragments {max(s[3] for s in sizes)}"
    )
    assert late[1] < 3 * early[1], row.what
    assert not [f.row() for f in examine(Store.open(str(store))) if f.check != "space"]
    fresh = tmp_path / "fresh"
    for words in (stage.add(table), ("embedstore", "ingest", "d", *AS_M)):
        assert call_command(*words, "--store", fresh).code == 0
    sql = "select annotation_id, label, vector from m order by all"
    assert query_of(str(store), sql) == query_of(str(fresh), sql)


def test_a_store_works_at_another_place(
    stage: Stage, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    """Copied to another path, its slides under another too, as on another machine."""
    row = tally("a store at another path")
    first = Stage(tmp_path / "first")
    store = tmp_path / "elsewhere" / "with space" / "s"
    store.parent.mkdir(parents=True)
    shutil.copytree(first.states["run"], store)
    slides = tmp_path / "elsewhere" / "wsi"
    first.slides.rename(slides)
    shutil.rmtree(first.states["run"])
    before = contents(store)
    for words in (
        ("embedstore", "status", "d"),
        ("probes", "run", "d", "--fold", "0", "--fold", "1"),
        ("probes", "verify", query_of(str(store), "select min(run_id) as r from results")[0]["r"]),
        ("probes", "report", "d", "--output", tmp_path / "page"),
        first.add(None, slides),
        ("embedstore", "ingest", "d", *AS_M),
        ("embedstore", "ingest", "d", *AS_M, "--views", "d4"),
    ):
        row.tried += 1
        done = call_command(*words, "--store", store)
        assert done.code == 0, f"{words}: {done.err}"
        row.survived += 1
    after = contents(store)
    for table in ("embeddings.m", "annotations", "results"):
        assert not differences({table: before[table]}, {table: after[table]})
    assert not [f.row() for f in examine(Store.open(str(store)))]
