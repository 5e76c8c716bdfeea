"""The report says which models may have seen a dataset's slides."""

import csv
import io
from pathlib import Path

import pytest

from embedstore.store import Store
from embedstore.store.sql import connect_to, fetch_rows
from probes.reports import report
from tests.making.stores import plant_cells


@pytest.mark.parametrize("registry_name", ["phikon", "gigapath"])
def test_models_that_were_trained_on_a_collection_named_alike(
    tmp_path: Path, registry_name: str
) -> None:
    store = plant_cells(str(tmp_path / "s"), "d", ["a", "b"])
    slides = fetch_rows(connect_to(store, "slides"), "select * from _slides order by slide")
    named = [s | {"source_slide": f"TCGA-AA-{n:04d}-01Z"} for n, s in enumerate(slides[1:])]
    store.merge("slides", named)
    (model,) = fetch_rows(connect_to(store, "models"), "select * from _models where model = 'a'")
    store.merge("models", [model | {"registry_name": registry_name}])
    report(Store.open(store.uri), ["d"], tmp_path / "r")
    file = tmp_path / "r" / "seen.csv"
    if registry_name == "gigapath":
        assert not file.exists()
        return
    (row,) = csv.DictReader(io.StringIO(file.read_text()))
    of = f"{len(named):,} of {len(slides):,}"
    assert list(row.values()) == ["a", "d", "TCGA", of]
    assert "may have seen these very slides" in (tmp_path / "r" / "index.html").read_text()
