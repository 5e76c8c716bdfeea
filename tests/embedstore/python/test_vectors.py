"""Vectors in Python: whose they are, that none is stale, and that frames share their memory."""

from pathlib import Path

import numpy as np
import pytest

from embedstore import EmbedstoreError, Store
from embedstore.python.vectors import Embeddings
from tests.making.slides import TinyDataset, write_csv

VIT = {"timm:test_vit": "random"}


@pytest.fixture
def embeddings(embedded: str) -> Embeddings:
    return Store(embedded).embeddings("timm:test_vit", "tiny")


def test_vectors_and_cells_are_those_that_sql_tells(embedded: str, embeddings: Embeddings) -> None:
    told = Store(embedded).sql(
        "select e.annotation_id, a.domain, a.label, a.x_l0, e.vector from embeddings e "
        "join annotations a using (annotation_id) where model = 'timm:test_vit'"
    )
    told = told.set_index("annotation_id").loc[embeddings.cells.index]
    assert len(embeddings) == len(told) == 48
    assert (np.stack(told["vector"].tolist()) == embeddings.X).all()
    for column in ("domain", "label", "x_l0"):
        assert told[column].tolist() == embeddings.cells[column].tolist()


def test_all_forms_hold_the_same_numbers_in_the_same_memory(embeddings: Embeddings) -> None:
    anndata = embeddings.to_anndata()
    arrow = embeddings.to_arrow()
    flat = arrow["vector"].chunk(0).flatten().to_numpy(zero_copy_only=True)
    for array in (
        embeddings.to_numpy(),
        embeddings.to_pandas().to_numpy(),
        flat,
        anndata.X,
        np.asarray(embeddings),
    ):
        assert np.shares_memory(array, embeddings.X)
        assert (array.reshape(embeddings.X.shape) == embeddings.X).all()
    ids = embeddings.cells.index.tolist()
    assert ids == arrow["annotation_id"].to_pylist() == anndata.obs_names.tolist()
    assert ids == embeddings.to_pandas().index.tolist()
    assert (anndata.obsm["spatial"][:, 1] == embeddings.cells["y_l0"]).all()


def test_a_copy_is_one_where_it_is_asked_for(embeddings: Embeddings) -> None:
    copied = np.array(embeddings, copy=True)
    assert not np.shares_memory(copied, embeddings.X)
    assert np.asarray(embeddings, dtype=np.float64).dtype == np.float64


def test_a_condition_chooses_cells(embedded: str) -> None:
    store = Store(embedded)
    some = store.embeddings("timm:test_vit", where="domain = 'a' and label = 'mitotic figure'")
    assert len(some) == 12
    assert set(some.cells["domain"]) == {"a"}
    whole = store.embeddings("timm:test_vit")
    at = whole.cells.index.get_indexer(some.cells.index)
    assert (whole.X[at] == some.X).all()


def test_vectors_of_what_has_moved_are_not_among_them(tmp_path: Path, tiny: TinyDataset) -> None:
    store = Store(tmp_path / "s")
    rows = [r | {"id": str(n)} for n, r in enumerate(tiny.rows)]
    file = write_csv(tmp_path / "cells.csv", rows)
    store.add("tiny", file, slides=tiny.slides)
    store.ingest("tiny", "timm:test_vit", weights=VIT, patch_px=64)
    rows[0]["x"] = str(float(rows[0]["x"]) + 9)
    store.add("tiny", write_csv(file, rows), slides=tiny.slides)
    assert len(store.embeddings("timm:test_vit")) == 47


@pytest.mark.parametrize(
    ("model", "dataset", "where", "said"),
    [
        ("uni", None, None, "no embeddings of model 'uni'.*there: timm:test_resnet"),
        ("timm:test_vit", "other", None, "no dataset 'other'"),
        ("timm:test_vit", "tiny", "domain = 'z'", "no embeddings.* where domain = 'z'"),
        ("timm:test_vit", "tiny", "1=1) or (1=1", "no SQL condition"),
    ],
)
def test_what_is_not_there_is_said(
    embedded: str, model: str, dataset: str | None, where: str | None, said: str
) -> None:
    with pytest.raises(EmbedstoreError, match=said):
        Store(embedded).embeddings(model, dataset, where=where)
