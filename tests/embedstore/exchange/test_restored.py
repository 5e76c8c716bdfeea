"""A restored model: its name, what ingest completes, what probes score."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.exchange import export, import_embeddings
from embedstore.ingest import IngestOptions, ingest
from embedstore.reading.status import status
from embedstore.store import Store
from probes.runs import RunOptions, run
from probes.splits.spec import Asked, ManifestSpec
from tests.making.exchanges import IDS, VECTORS, record, stored, write
from tests.making.slides import TinyDataset
from tests.making.stores import put_embeddings

RESNET = "timm:test_resnet"


def test_a_name_stands_for_one_model(store: Store, tmp_path: Path) -> None:
    put_embeddings(store, "m", IDS[:2], VECTORS[:2])
    export(store, "d", "m", tmp_path / "m.npz")
    foreign = write(tmp_path / "f.npz", annotation_id=IDS, vector=VECTORS)
    with pytest.raises(EmbedstoreError, match="does not say what made .*another --model NAME"):
        import_embeddings(store, "d", "m", foreign)
    import_embeddings(store, "d", "mine", foreign)
    with pytest.raises(
        EmbedstoreError, match="arch imported .asked: a.*under another --model NAME"
    ):
        import_embeddings(store, "d", "mine", tmp_path / "m.npz")
    for name in ("results", "MINE"):
        with pytest.raises(EmbedstoreError, match="choose another --model NAME"):
            import_embeddings(store, "d", name, foreign)
    for wrong, said in (
        ({"dim": 4}, "the file says dim 4"),
        ({"n_params": "x"}, "cannot be stored"),
        ({"created_at": "y"}, "cannot be stored"),
        (None, "lacks arch"),
    ):
        model = {} if wrong is None else record(store, "m") | {"created_at": None} | wrong
        model |= {"dim": 3} if wrong is None else {}
        file = write(
            tmp_path / "r.npz", annotation_id=IDS, vector=VECTORS, model_json=json.dumps(model)
        )
        with pytest.raises(EmbedstoreError, match=said):
            import_embeddings(store, "d", "restored", file)
    file = write(tmp_path / "r.npz", annotation_id=IDS, vector=VECTORS, model_json="[1]")
    with pytest.raises(EmbedstoreError, match="no JSON object"):
        import_embeddings(store, "d", "restored", file)


def test_ingest_completes_a_restored_model_and_refuses_an_imported_one(
    tiny: TinyDataset, embedded: str, tmp_path: Path
) -> None:
    uri = str(tmp_path / "s")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    store = Store.open(uri)
    export(Store.open(embedded), "tiny", RESNET, tmp_path / "x.parquet")
    some = pq.read_table(tmp_path / "x.parquet").slice(5, 30)
    pq.write_table(some, tmp_path / "some.parquet")
    report = import_embeddings(store, "tiny", RESNET, tmp_path / "some.parquet")
    assert (report.n_imported, report.n_lacking, report.weights) == (30, 18, "random")
    (model,) = ingest(store, "tiny", [RESNET], IngestOptions()).models
    assert (model.n_before, model.n_embedded, model.n_left) == (30, 18, 0)
    mine, original = stored(store, RESNET), stored(Store.open(embedded), RESNET)
    for i, vector in original.items():
        np.testing.assert_allclose(mine[i], vector, atol=1e-2)  # the dtype may be bfloat16
    pq.write_table(some.replace_schema_metadata(None), tmp_path / "bare.parquet")
    import_embeddings(store, "tiny", "mine", tmp_path / "bare.parquet")
    options = IngestOptions(name="mine", weights={RESNET: "random"})
    with pytest.raises(
        EmbedstoreError, match="'mine' were imported .imported: bare.parquet.*--as NAME"
    ):
        ingest(store, "tiny", [RESNET], options)


def test_probes_score_a_restored_model_as_the_original(
    tiny: TinyDataset, embedded: str, tmp_path: Path
) -> None:
    uri = str(tmp_path / "s")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    here, there = Store.open(embedded), Store.open(uri)
    export(here, "tiny", RESNET, tmp_path / "x.npz")
    import_embeddings(there, "tiny", RESNET, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as z:
        np.savez(tmp_path / "bare.npz", annotation_id=z["annotation_id"], embedding=z["vector"])
    import_embeddings(there, "tiny", "mine", tmp_path / "bare.npz")
    spec = ManifestSpec("tiny", seed=11)
    original = run(here, spec, RunOptions(splits=Asked(folds=[0]), models=[RESNET]))
    restored = run(there, spec, RunOptions(splits=Asked(folds=[0]), models=[RESNET, "mine"]))
    values = {
        m: {(r.metric, r.eval_domain): r.value for r in restored.rows if r.model == m}
        for m in (RESNET, "mine")
    }
    expected = {(r.metric, r.eval_domain): r.value for r in original.rows}
    assert values[RESNET] == values["mine"] == expected
    assert {r.run_id for r in original.rows} < {r.run_id for r in restored.rows}
    mine = [r for r in restored.rows if r.model == "mine"]
    assert {(r.weights, r.weights_sha256) for r in mine} == {("imported: bare.npz", None)}
    again = run(there, spec, RunOptions(splits=Asked(folds=[0]), models=["mine"]))
    assert (again.n_new, again.n_recorded) == (0, 1)
    row = next(r for r in status(there, "tiny") if r["model"] == "mine")
    assert (row["done"], row["missing"], row["weights_sha256"]) == (48, 0, None)
