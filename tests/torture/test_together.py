"""Two and four commands at once on one store, with a reader and a clean-up throughout."""

import itertools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedstore.doctor import examine
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.sql import connect, fetch_rows
from embedstore.store.tidy import compact, give_back
from tests.making.commands import call_command
from tests.making.stores import query
from tests.torture.contents import contents
from tests.torture.processes import begin
from tests.torture.scenes import Stage
from tests.torture.told import IS_FULL, Tally, chance

VERBS = (
    *("add", "ingest", "import", "split", "run", "compare", "e2e", "remove"),
    *("add moved", "add relabelled", "add other slides"),
)
PAIRS = [(a, b, n) for a, b in itertools.combinations_with_replacement(VERBS, 2) for n in (2, 4)]
SHORT = [
    ("ingest", "add moved", 2),
    ("import", "remove", 2),
    ("run", "add relabelled", 2),
    ("add", "ingest", 4),
]

VISIBLE = (
    "select * exclude (path, status, problem) from slides order by all",
    "select * from annotations order by all",
    "select annotation_id, model, dataset, domain, label, slide, vector from embeddings order by all",
    "select manifest_id, fold, annotation_id, role from manifests where scheme = 'monte-carlo' and "
    "group_by = 'annotation' and manifest_id not in (select manifest_id from superseded) order by all",
    "select run_id, model, metric, fold, value, ci_low from results where method = 'uni' and "
    "group_by = 'annotation' order by all",
    "select run_id, annotation_id, label, truth, score from predictions where run_id in (select "
    "run_id from results where method = 'uni' and group_by = 'annotation') order by all",
    "select a, b, fraction, metric, difference, ci_low from comparisons order by all",
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"))


def settle(stage: Stage, uri: str) -> dict[str, Any]:
    """Give the last word to the usual commands, and return what the store then shows."""
    for words in stage.settled():
        done = call_command(*words, "--store", uri)
        assert done.code == 0, f"{words}: {done.err}"
    store = Store.open(uri)
    return {sql: query(store, sql) for sql in VISIBLE}


@pytest.fixture(scope="module")
def expected(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    uri = tmp_path_factory.mktemp("expected") / "s"
    shutil.copytree(stage.states["run"], uri)
    return settle(stage, str(uri))


CONSISTENT = {
    "an embedding twice": "select annotation_id, model from embeddings group by all having count(*) > 1",
    "an embedding of nothing": "select annotation_id from embeddings anti join _annotations using (annotation_id)",
    "a result twice": "select run_id, metric, eval_domain, eval_dataset from "
    "results group by all having count(*) > 1",
    "a test annotation in train": "select split_id, annotation_id from manifests group by all having count(*) > 1",
    "a run without predictions": "select run_id from results where run_id not in (select run_id from predictions)",
}
"""What no reader may ever see: each query has no rows."""


class Meanwhile:
    """Threads that read a store and tidy it until they are told to stop."""

    def __init__(self, uri: str, *, is_removed: bool) -> None:
        """is_removed: a model's table goes meanwhile; who reads it then is told so, as documented."""
        self.uri, self.n_reads, self.faults = uri, 0, list[str]()
        self.is_removed = is_removed
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._tidy)]

    def __enter__(self) -> "Meanwhile":
        for t in self._threads:
            t.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for t in self._threads:
            t.join()

    def _read(self) -> None:
        while not self._stop.wait(0.05):
            for says, sql in CONSISTENT.items():
                try:
                    rows = fetch_rows(connect(Store.open(self.uri)), sql)
                except EmbedstoreError as e:
                    if not self.is_removed:
                        self.faults.append(f"{says}: {e}")
                    continue
                except Exception as e:  # noqa: BLE001  (what is sought)
                    self.faults.append(f"{says}: {type(e).__name__}: {e}")
                    continue
                self.n_reads += 1
                if rows:
                    self.faults.append(f"{says}: {rows[:3]}")

    def _tidy(self) -> None:
        while not self._stop.wait(0.3):
            try:
                store = Store.open(self.uri)
                for name in store.tables():
                    compact(store, name)
                    give_back(store, name)
            except Exception as e:  # noqa: BLE001
                self.faults.append(f"tidying: {type(e).__name__}: {e}")


@pytest.mark.parametrize(("a", "b", "n"), PAIRS if IS_FULL else SHORT)
def test_side_by_side_nothing_is_lost_twice_or_stale(
    stage: Stage,
    expected: dict[str, Any],
    a: str,
    b: str,
    n: int,
    tmp_path: Path,
    tally: Callable[[str], Tally],
) -> None:
    row = tally(f"{n} commands at once")
    row.tried += 1
    uri = str(shutil.copytree(stage.states["run"], tmp_path / "s"))
    names = [a, b] * (n // 2)
    chance("order", a, b, n).shuffle(names)
    with Meanwhile(uri, is_removed="remove" in (a, b)) as meanwhile:
        commands = [
            begin([*stage.verbs()[name], "--store", uri], tmp_path / f"p{k}")
            for k, name in enumerate(names)
        ]
        codes = [c.wait() for c in commands]
    for name, code, command in zip(names, codes, commands, strict=True):
        assert code in (0, 1), f"{name} ended with {code}: {command.err}"
        assert "Traceback" not in command.err, command.err
        assert code == 0 or "error:" in command.err, command.err
        assert code == 0 or {a, b} & {"remove", "add moved", "add other slides"}, (
            f"{name}: {command.err}"
        )
    assert not meanwhile.faults, "\n".join(meanwhile.faults[:5])
    assert meanwhile.n_reads
    contents(Path(uri))  # each key once
    now = settle(stage, uri)
    for sql, rows in expected.items():
        assert now[sql] == rows, sql
    found = [f.row() for f in examine(Store.open(uri)) if f.check != "space"]
    assert not found
    store = Store.open(uri)
    for r in query(
        store, "select distinct model, embeddings_version as v from results where method = 'uni'"
    ):
        table = store.open_table(model_table(r["model"])).to_lance()
        assert table.checkout_version(r["v"]).count_rows() > 0
    row.survived += 1
