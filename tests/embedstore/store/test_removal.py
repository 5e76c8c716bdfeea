"""`embedstore remove`: all that hangs on it goes at once, killed at any write or not; the rest stays."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.store import Store
from embedstore.store.layout import TABLES, model_table
from embedstore.store.removal import Part, plan_removal, remove
from embedstore.store.removed import removed
from embedstore.store.views import VIEWS
from probes.runs import RunOptions, run
from probes.scores.comparisons import CompareOptions
from probes.scores.sides import Side
from probes.slices import Matrix
from probes.splits.spec import Asked, ManifestSpec
from probes.studies.compare import compare
from tests.making.commands import ROOT, call_command
from tests.making.stores import plant, plant_two, plant_views, query, query_of

OPTIONS = RunOptions(splits=Asked(folds=[0, 1], fractions=[1.0]))
SIDES = Side.parse("uni:strong"), Side.parse("uni:weak")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Datasets d and e, two models, runs on both, d's probes on e and e's on d, compared."""
    uri = str(tmp_path_factory.mktemp("r") / "s")
    store = plant_two(uri, 240, 120)
    plant(store, "strong", 8, 2.0)
    plant(store, "weak", 8, 1.0)
    plant_views(store, "weak", 8)
    for dataset, other in (("d", "e"), ("e", "d")):
        spec = ManifestSpec(dataset)
        run(store, spec, OPTIONS)
        run(store, spec, RunOptions(splits=OPTIONS.splits, eval_dataset=other))
        compare(store, spec, SIDES[0], [SIDES[1]], CompareOptions())
    run(store, ManifestSpec("d", where="domain <> 'dom0'"), OPTIONS)
    return uri


@pytest.fixture
def store(full: str, tmp_path: Path) -> Store:
    return Store.open(str(shutil.copytree(full, tmp_path / "s")))


def counts(uri: str) -> dict[str, int]:
    """Rows of every view and model, and of every table behind them."""
    store = Store.open(uri)
    views = [*VIEWS, "embeddings", "embedding_views", *store.models()]
    return {v: query(store, f'select count(*) as n from "{v}"')[0]["n"] for v in views}


def stored(uri: str) -> dict[str, int]:
    store = Store.open(uri)
    return {t: store.open_table(t).count_rows() for t in store.tables()}


def test_a_dataset_goes_with_all_that_hangs_on_it(store: Store) -> None:
    before = counts(store.uri)
    removal = plan_removal(store, "d", Part())
    assert removal.counts["annotations"] == 240
    assert removal.counts["embeddings"] == 480
    assert removal.counts["views"] == 8 * 240
    assert removal.counts["splits"] == 4
    assert counts(store.uri) == before  # planned is not done
    remove(store, removal)
    after = counts(store.uri)
    assert after["annotations"] == after["strong"] == after["weak"] == 120
    assert after["embedding_views"] == 8 * 120
    for view in ("annotations", "slides", "datasets", "splits", "results", "embeddings"):
        assert {r["dataset"] for r in query_of(store.uri, f"select dataset from {view}")} == {"e"}
    assert query_of(store.uri, "select distinct eval_dataset from results") == [
        {"eval_dataset": None}
    ]
    assert query_of(store.uri, "select distinct dataset from predictions") == [{"dataset": "e"}]
    assert query_of(store.uri, "select distinct dataset from comparisons") == [{"dataset": "e"}]
    assert stored(store.uri)["removals"] == 0
    assert removed(Store.open(store.uri)) == {}
    assert len(Matrix(Store.open(store.uri), "strong", "e").ids) == 120


def test_what_is_left_is_as_if_the_dataset_had_never_been(store: Store, tmp_path: Path) -> None:
    remove(store, plan_removal(store, "d", Part()))
    alone = plant_two(str(tmp_path / "alone"), 240, 120)
    plant(alone, "strong", 8, 2.0)
    plant(alone, "weak", 8, 1.0)
    run(alone, ManifestSpec("e"), OPTIONS)
    columns = "manifest_id, model, method, fold, fraction, metric, value"
    sql = f"select {columns} from results where dataset = 'e' and eval_dataset is null order by all"
    assert query_of(store.uri, sql) == query(alone, sql)
    report = run(Store.open(store.uri), ManifestSpec("e"), OPTIONS)
    assert report.n_new == 0


def test_a_model_goes_with_what_probes_made_of_it(store: Store) -> None:
    before = counts(store.uri)
    remove(store, plan_removal(store, "d", Part(model="weak")))
    after = counts(store.uri)
    assert (after["annotations"], after["splits"]) == (before["annotations"], before["splits"])
    assert (after["strong"], after["weak"]) == (360, 120)
    assert after["embedding_views"] == 8 * 120
    rows = query_of(store.uri, "select distinct dataset, model, eval_dataset from results")
    assert not [
        r for r in rows if r["model"] == "weak" and "d" in (r["dataset"], r["eval_dataset"])
    ]
    assert [r for r in rows if r["model"] == "weak"]
    assert query_of(store.uri, "select distinct dataset from comparisons") == [{"dataset": "e"}]
    remove(Store.open(store.uri), plan_removal(Store.open(store.uri), "e", Part(model="weak")))
    assert Store.open(store.uri).models() == ["strong"]  # nothing of it is left, nor its name
    assert query_of(store.uri, "select model from models") == [{"model": "strong"}]


@pytest.mark.parametrize("part", [Part(slide="d03.tiff"), Part(where="domain = 'dom0'")])
def test_annotations_go_with_the_splits_that_they_are_in(store: Store, part: Part) -> None:
    condition = f"slide = '{part.slide}'" if part.slide else str(part.where)
    going = {
        r["annotation_id"]
        for r in query(store, f"from annotations where dataset = 'd' and {condition}")
    }
    assert 0 < len(going) < 240
    remove(store, plan_removal(store, "d", part))
    after = counts(store.uri)
    assert after["annotations"] == 360 - len(going)
    assert after["strong"] == 360 - len(going)
    ids = {r["annotation_id"] for r in query_of(store.uri, "select annotation_id from manifests")}
    assert not ids & going
    ids = {r["annotation_id"] for r in query_of(store.uri, "select annotation_id from predictions")}
    assert not ids & going
    left = query_of(store.uri, "select distinct dataset, where_sql from splits order by all")
    kept = [{"dataset": "d", "where_sql": "domain <> 'dom0'"}] if part.where else []
    assert left == [*kept, {"dataset": "e", "where_sql": None}]
    if part.slide:
        assert not query_of(store.uri, f"from slides where slide = '{part.slide}'")
    assert run(Store.open(store.uri), ManifestSpec("d"), OPTIONS).n_new == 4


def test_space_is_given_back(store: Store) -> None:
    folder = Path(store.uri)

    def size() -> int:
        return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())

    before = size()
    freed = remove(store, plan_removal(store, "d", Part()))
    assert freed == before - size()
    assert size() < 0.6 * before


def test_what_is_not_there_is_named(store: Store) -> None:
    for part, said in (
        (Part(model="none"), "has nothing of model 'none'; there: strong, weak"),
        (Part(slide="none"), "'d' has no slide 'none'; there: d00.tiff"),
        (Part(where="label = 'none'"), "no annotation of 'd' meets --where label = 'none'"),
        (Part(where="label ="), "no SQL condition"),
    ):
        with pytest.raises(EmbedstoreError, match=said):
            plan_removal(store, "d", part)
    with pytest.raises(EmbedstoreError, match="no dataset 'f'"):
        plan_removal(store, "f", Part())
    with pytest.raises(UsageError, match="one of --model, --slide and --where"):
        plan_removal(store, "d", Part(model="weak", slide="d00.tiff"))


def test_it_asks_first(store: Store) -> None:
    before = counts(store.uri)
    words = ("embedstore", "remove", "d", "--model", "weak", "--store", store.uri)
    done = call_command(*words)
    assert done.code == 2
    assert "give --yes" in done.err
    dry = call_command(*words, "--dry-run", "--json")
    assert {r["of"]: r["n"] for r in dry.json()}["embeddings"] == 240
    assert counts(store.uri) == before
    done = call_command(*words, "--yes")
    assert done.code == 0, done.err
    assert "MB given back" in done.err
    assert counts(store.uri)["weak"] == 120


KILLED = """
import os, signal, sys
import lancedb.table
from embedstore.store import Store
from embedstore.store.removal import Part, plan_removal, remove
n = int(sys.argv[2])
store = Store.open(sys.argv[1], write=True)
removal = plan_removal(store, "d", Part())
def counted(real):
    def call(*args, **kwargs):
        global n
        if n == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        n -= 1
        return real(*args, **kwargs)
    return call
for name in ("delete", "optimize", "merge_insert"):
    setattr(lancedb.table.LanceTable, name, counted(getattr(lancedb.table.LanceTable, name)))
remove(store, removal)
"""


def test_killed_anywhere_it_is_done_or_not_begun(full: str, tmp_path: Path) -> None:
    before = counts(full)
    whole = str(shutil.copytree(full, tmp_path / "whole"))
    remove(Store.open(whole), plan_removal(Store.open(whole), "d", Part()))
    after, deleted = counts(whole), stored(whole)
    assert before != after
    seen: list[bool] = []
    for n in (0, 1, 4, 12, 30):
        uri = str(shutil.copytree(full, tmp_path / f"k{n}"))
        words = [sys.executable, "-c", KILLED, uri, str(n)]
        code = subprocess.run(words, cwd=ROOT, capture_output=True).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        now = counts(uri)
        assert now in (before, after), n
        seen.append(now == after)
        Store.open(uri, write=True)
        assert counts(uri) == now
        if now == after:
            assert stored(uri) == deleted
    assert seen[0] is False
    assert seen == sorted(seen)
    assert sum(seen) >= 3


def test_what_is_removed_is_not_found_before_it_is_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state that a kill leaves: written down, nothing deleted; every reader goes by it."""
    removal = plan_removal(store, "d", Part(where="domain = 'dom0'"))
    monkeypatch.setattr("embedstore.store.removal.finish_removals", lambda store: None)
    remove(store, removal)
    assert stored(store.uri)["annotations"] == 360
    reader = Store.open(store.uri)
    assert not query(reader, "from annotations where dataset = 'd' and domain = 'dom0'")
    assert not query(reader, "from strong where dataset = 'd' and domain = 'dom0'")
    matrix = Matrix(reader, "strong", "d")
    assert np.array_equal(np.unique(matrix.facts["domain"].astype(str)), ["dom1", "dom2"])
    assert set(TABLES) <= set(reader.tables())
    assert reader.open_table(model_table("strong")).count_rows() == 360
