"""`embedstore doctor`: each damage is planted, found under its name, and mended where it can be."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from embedstore.add import AddOptions, add
from embedstore.doctor import examine, mend
from embedstore.errors import EmbedstoreError
from embedstore.ingest import IngestOptions, ingest
from embedstore.store import Store
from embedstore.store.layout import model_table
from probes.runs import RunOptions, run
from probes.scores.comparisons import CompareOptions
from probes.scores.sides import Side
from probes.splits.spec import Asked, ManifestSpec
from probes.studies.compare import compare
from tests.making.commands import ROOT, call_command
from tests.making.slides import make_tiny, write_csv
from tests.making.stores import query

MODELS = ["timm:test_vit", "timm:test_resnet"]
OPTIONS = IngestOptions(weights=dict.fromkeys(MODELS, "random"), dtype="float32", views="d4")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with slides, two models, views, kept patches, runs and a comparison."""
    folder = tmp_path_factory.mktemp("whole")
    tiny = make_tiny(folder / "t", per_label=10)
    uri = str(folder / "s")
    rows = [{**r, "id": str(n)} for n, r in enumerate(tiny.rows)]
    add(uri, "d", write_csv(folder / "c.csv", rows), AddOptions(slides=tiny.slides))
    ingest(Store.open(uri), "d", MODELS, OPTIONS)
    spec = ManifestSpec("d")
    run(Store.open(uri), spec, RunOptions(splits=Asked(folds=[0, 1], fractions=[1.0])))
    a, b = (Side.parse(f"uni:{m}") for m in MODELS)
    compare(Store.open(uri), spec, a, [b], CompareOptions())
    return folder


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Store:
    return Store.open(str(shutil.copytree(whole / "s", tmp_path / "s")), write=True)


def raw(store: Store, name: str) -> Any:
    return lancedb.connect(store.uri).open_table(name)


VIT = model_table("timm:test_vit")
A_CELL = "annotation_id = 'd/a0.tiff/0'"


def twice(store: Store, name: str) -> None:
    raw(store, name).add(raw(store, name).to_arrow().slice(0, 1))


def odd_vector(store: Store) -> None:
    table = raw(store, VIT).to_arrow()
    vectors = np.array(table["vector"].to_pylist(), dtype=np.float32)
    vectors[3, 2] = np.inf
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    at = table.schema.get_field_index("vector")
    odd = table.set_column(at, table.schema.field("vector"), column).slice(3, 1)
    raw(store, VIT).merge_insert("annotation_id").when_matched_update_all().execute(odd)


def odd_patch(store: Store) -> None:
    first = raw(store, "patches").to_arrow().slice(0, 1)["patch_id"][0].as_py()
    raw(store, "patches").update(where=f"patch_id = '{first}'", values={"pixels": b"\x00odd"})


def lost_file(store: Store) -> None:
    (Path(store.uri) / "results.lance/data/lost.lance").write_bytes(b"x" * 100)


DELETED = {"value": "deleted"}
# What is planted: check, table, n found, whether doctor mends it.
PLANTED: dict[str, tuple[Callable[[Store], Any], str, str, int, bool]] = {
    "a key twice": (lambda s: twice(s, "annotations"), "keys", "annotations", 1, True),
    "a vector twice": (lambda s: twice(s, VIT), "keys", VIT, 1, True),
    "a result twice": (lambda s: twice(s, "results"), "keys", "results", 1, True),
    "vectors of nothing": (
        lambda s: raw(s, "annotations").delete(A_CELL),
        "orphans",
        VIT,
        1,
        True,
    ),
    "patches of nothing": (
        lambda s: raw(s, "annotations").delete(A_CELL),
        "orphans",
        "patches",
        1,
        True,
    ),
    "splits of nothing": (
        lambda s: raw(s, "annotations").delete(A_CELL),
        "orphans",
        "splits",
        2,
        False,
    ),
    "no slide": (
        lambda s: raw(s, "slides").delete("slide = 'a0.tiff'"),
        "orphans",
        "annotations",
        20,
        False,
    ),
    "no dataset": (lambda s: raw(s, "datasets").delete("true"), "orphans", "slides", 4, False),
    "no manifest": (lambda s: raw(s, "splits").delete("true"), "orphans", "results", 0, False),
    "no predictions": (
        lambda s: raw(s, "predictions").delete("true"),
        "orphans",
        "results",
        0,
        True,
    ),
    "no results": (lambda s: raw(s, "results").delete("true"), "orphans", "predictions", 0, True),
    "no result of a probe": (
        lambda s: raw(s, "results").delete("true"),
        "orphans",
        "probes",
        4,
        True,
    ),
    "no result of a comparison": (
        lambda s: raw(s, "results").delete("true"),
        "orphans",
        "comparisons",
        0,
        True,
    ),
    "no record of a model": (
        lambda s: raw(s, "models").delete("true"),
        "orphans",
        "models",
        2,
        False,
    ),
    "a model without a table": (
        lambda s: raw(s, "models").add([{"model": "ghost", "dim": 3}]),
        "orphans",
        "models",
        1,
        True,
    ),
    "a label of before": (
        lambda s: raw(s, VIT).update(where=A_CELL, values={"label": "before"}),
        "stale",
        VIT,
        1,
        True,
    ),
    "a place of before": (
        lambda s: raw(s, VIT).update(where=A_CELL, values={"cut_x_l0": 1.0}),
        "stale",
        VIT,
        1,
        True,
    ),
    "an add cut off": (
        lambda s: raw(s, "datasets").update(values={"pending": ["x"]}),
        "stale",
        "datasets",
        1,
        False,
    ),
    "no number": (odd_vector, "values", VIT, 1, True),
    "no pixels": (odd_patch, "values", "patches", 1, True),
    "a file of a killed write": (lost_file, "space", "results", 1, True),
    "another's table": (
        lambda s: lancedb.connect(s.uri).create_table("mine", pa.table({"a": [1]})),
        "tables",
        "mine",
        1,
        False,
    ),
}


def test_a_whole_store_is_whole(store: Store) -> None:
    assert examine(store) == []
    done = call_command("embedstore", "doctor", "--store", store.uri)
    assert (done.code, done.err.strip().splitlines()[-1]) == (0, "the store is whole")


VISIBLE = (
    "select * from annotations order by all",
    "select annotation_id, model, label, vector from embeddings order by all",
    "select view_id, vector from embedding_views order by all",
    "select run_id, metric, eval_domain, value from results order by all",
    "select run_id, annotation_id, score from predictions order by all",
    "select model, arch, dim from models order by all",
)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_damage_is_found_and_mended(
    store: Store, whole: Path, name: str, tmp_path: Path
) -> None:
    plant, check, table, n, is_mended = PLANTED[name]
    before = {q: query(store, q) for q in VISIBLE}
    plant(store)
    store = Store.open(store.uri, write=True)
    found = [f for f in examine(store) if (f.check, f.table) == (check, table)]
    assert len(found) == 1, [f.row() for f in examine(store)]
    assert found[0].n == n or n == 0
    assert found[0].can_be_mended == is_mended
    done = call_command("embedstore", "doctor", "--mend", "--json", "--store", store.uri)
    rows = json.loads(done.out)
    assert all(r["mended"] == is_mended for r in rows if (r["check"], r["table"]) == (check, table))
    assert done.code == int(any(not r["mended"] for r in rows))
    left = [f for f in examine(Store.open(store.uri)) if f.can_be_mended]
    assert left == []
    if is_mended and name not in ("vectors of nothing", "patches of nothing"):
        # What was deleted can be made again: the commands that did it do it again.
        ingest(Store.open(store.uri, write=True), "d", MODELS, OPTIONS)
        options = RunOptions(splits=Asked(folds=[0, 1], fractions=[1.0]))
        run(Store.open(store.uri, write=True), ManifestSpec("d"), options)
        for q, rows in before.items():
            assert query(Store.open(store.uri), q) == rows, q


def test_a_changed_slide_and_a_lost_one_are_named(
    whole: Path, store: Store, tmp_path: Path
) -> None:
    slides = shutil.copytree(whole / "t/slides", tmp_path / "slides")
    add(store.uri, "d", whole / "c.csv", AddOptions(slides=slides))
    (slides / "a0.tiff").unlink()
    with (slides / "a1.tiff").open("ab") as f:
        f.write(b"more")
    found = {f.says: f.examples for f in examine(Store.open(store.uri)) if f.table == "slides"}
    assert sorted(map(list, found.values())) == [["d/a0.tiff"], ["d/a1.tiff"]]


def test_a_bit_that_turned_is_found_by_the_digest(store: Store) -> None:
    assert examine(store) == []
    (file,) = (Path(store.uri) / f"{VIT}.lance/data").glob("*")
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    (found,) = [f for f in examine(Store.open(store.uri)) if f.check == "digests"]
    assert found.table == VIT
    assert examine(Store.open(store.uri))  # still, until it is restored
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    assert examine(Store.open(store.uri)) == []


def test_a_table_that_cannot_be_read_is_named_and_nothing_is_mended(store: Store) -> None:
    for file in (Path(store.uri) / "results.lance/_versions").glob("*"):
        file.write_bytes(b"odd")
    found = examine(Store.open(store.uri))
    assert [(f.check, f.table) for f in found] == [("tables", "results")]
    assert "restore a copy" in found[0].advice
    (file,) = (Path(store.uri) / f"{VIT}.lance/data").glob("*")
    file.write_bytes(b"")
    assert {f.table for f in examine(Store.open(store.uri))} == {"results"}


def test_rows_that_cannot_be_read_are_named(store: Store) -> None:
    (file,) = (Path(store.uri) / f"{VIT}.lance/data").glob("*")
    file.write_bytes(b"")
    found = examine(Store.open(store.uri))
    assert any(f.table == VIT and "cannot be read" in f.says for f in found)
    assert not any(f.can_be_mended for f in found if f.table == VIT)


HOLDS = """
import sys, time
from embedstore.store import Store
Store.open(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_nothing_is_mended_beside_another_process(store: Store) -> None:
    twice(store, "annotations")
    findings = examine(store)
    words = [sys.executable, "-c", HOLDS, store.uri]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(EmbedstoreError, match="another process has the store"):
            mend(store, findings)
        holder.kill()
    assert store.open_table("annotations").count_rows() == 81
    mend(store, findings)
    assert store.open_table("annotations").count_rows() == 80
