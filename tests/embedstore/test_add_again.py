"""`add` a second time: what changes, what is kept, what must be added again."""

from pathlib import Path

import numpy as np
import pytest

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.ingest import IngestOptions, ingest
from embedstore.store import Store
from embedstore.store.layout import model_table
from tests.making.slides import TinyDataset, write_csv, write_slide
from tests.making.stores import query_of


def test_changes_reach_the_embeddings(tiny: TinyDataset, tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    rows = [{**r, "id": str(n)} for n, r in enumerate(tiny.rows)]
    add(uri, "d", write_csv(tmp_path / "a.csv", rows), AddOptions(slides=tiny.slides))
    options = IngestOptions(weights={"timm:test_resnet": "random"})
    ingest(Store.open(uri), "d", ["timm:test_resnet"], options)
    before = {r["annotation_id"]: r for r in query_of(uri, "select * from embeddings")}
    rows[0]["x"] = "333"  # moved
    rows[1]["label"] = "mitotic figure"  # relabelled
    rows[2]["domain"] = "z"
    report = add(uri, "d", write_csv(tmp_path / "a.csv", rows), AddOptions())
    assert any("1 annotations moved" in n for n in report.notes)
    assert any("2 annotations changed" in n for n in report.notes)
    after = {r["annotation_id"]: r for r in query_of(uri, "select * from embeddings")}
    gone, relabelled, redomained = (f"d/{rows[k]['slide']}/{k}" for k in range(3))
    assert before.keys() - after.keys() == {gone}
    assert (before[relabelled]["label"], after[relabelled]["label"]) == (
        "non-mitotic figure",
        "mitotic figure",
    )
    assert after[redomained]["domain"] == "z"
    assert all(after[k]["vector"] == before[k]["vector"] for k in after)
    (model,) = ingest(Store.open(uri), "d", ["timm:test_resnet"], options).models
    assert (model.n_before, model.n_embedded) == (47, 1)
    (row,) = query_of(uri, f"select vector from embeddings where annotation_id = '{gone}'")
    assert row["vector"] != before[gone]["vector"]
    assert Store.open(uri).stats(model_table("timm:test_resnet"))["n_rows"] == 48


def vectors(uri: str) -> dict[str, list[float]]:
    return {r["annotation_id"]: r["vector"] for r in query_of(uri, "select * from embeddings")}


@pytest.mark.parametrize("change", ["mpp", "file"])
def test_another_scale_or_file_drops_the_embeddings_of_its_slides(
    tmp_path: Path, change: str
) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("a.tiff", "b.tiff"):
        pixels = rng.integers(0, 255, (400, 400, 3), dtype=np.uint8)
        # The table says a.tiff's alone: b.tiff says its own.
        write_slide(folder / name, pixels, mpp=None if name == "a.tiff" else 0.25)
    rows = [
        {
            "slide": f"{'ab'[k % 2]}.tiff",
            "x": 150 + k,
            "y": 200,
            "label": ("mitosis", "imposter")[k % 3 == 0],
        }
        for k in range(20)
    ]
    file, uri = write_csv(tmp_path / "a.csv", rows), str(tmp_path / "s")
    table = write_csv(tmp_path / "t.csv", [{"slide": "a.tiff", "mpp": 0.25}])
    add(uri, "d", file, AddOptions(slides=folder, slide_table=table))
    options = IngestOptions(weights={"timm:test_resnet": "random"})
    ingest(Store.open(uri), "d", ["timm:test_resnet"], options)
    before = vectors(uri)
    add(uri, "d", file, AddOptions(slides=folder))  # the same again: nothing is dropped
    assert vectors(uri) == before
    if change == "file":
        write_slide(
            folder / "a.tiff", rng.integers(0, 255, (400, 400, 3), dtype=np.uint8), mpp=None
        )
    write_csv(table, [{"slide": "a.tiff", "mpp": 0.5 if change == "mpp" else 0.25}])
    report = add(uri, "d", file, AddOptions(slides=folder, slide_table=table))
    assert any(
        "10 annotations moved (1 slides with another file or mpp)" in n for n in report.notes
    )
    assert {i.split("/")[1] for i in vectors(uri)} == {"b.tiff"}
    ingest(Store.open(uri), "d", ["timm:test_resnet"], options)
    after = vectors(uri)
    assert after.keys() == before.keys()
    assert all((after[i] == before[i]) == ("b.tiff" in i) for i in after)


def test_a_folder_that_moved_drops_nothing(tiny: TinyDataset, tmp_path: Path) -> None:
    import shutil

    uri = str(tmp_path / "s")
    add(uri, "d", tiny.csv, AddOptions(slides=tiny.slides))
    options = IngestOptions(weights={"timm:test_resnet": "random"})
    ingest(Store.open(uri), "d", ["timm:test_resnet"], options)
    before = vectors(uri)
    shutil.copytree(tiny.slides, tmp_path / "elsewhere")
    add(uri, "d", tiny.csv, AddOptions(slides=tmp_path / "elsewhere"))
    assert vectors(uri) == before
    assert {"elsewhere"} == {
        r["path"].split("/")[-2] for r in query_of(uri, "select path from slides")
    }


def test_a_slide_keeps_its_case_across_files(tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    for n, said in ((0, None), (1, "registered in case 'c0'")):
        rows = [
            {"slide": "a", "x": n, "y": k, "label": "mitosis", "case": f"c{n}"} for k in range(2)
        ]
        file = write_csv(tmp_path / f"{n}.csv", rows)
        if said is None:
            add(uri, "d", file, AddOptions())
        else:
            with pytest.raises(EmbedstoreError, match=said):
                add(uri, "d", file, AddOptions())
    rows = [{"slide": "a", "x": 0, "y": k, "label": "mitosis", "case": "c9"} for k in range(2)]
    add(uri, "d", write_csv(tmp_path / "0.csv", rows), AddOptions())  # all of it: corrected
    assert query_of(uri, "select distinct case_id from annotations") == [{"case_id": "c9"}]


def test_what_a_shorter_file_no_longer_names_stays_and_is_told(
    tiny: TinyDataset, tmp_path: Path
) -> None:
    uri = str(tmp_path / "s")
    add(uri, "d", tiny.csv, AddOptions())
    report = add(uri, "d", write_csv(tmp_path / "a.csv", tiny.rows[:40]), AddOptions())
    assert "8 annotations registered before are not in this file; they stay" in report.notes


def test_the_datasets_mpp_serves_a_second_file_and_a_mended_slide(
    tmp_path: Path, data: Path
) -> None:
    import shutil

    for name in ("a.tiff", "b.tiff"):
        write_slide(tmp_path / name, np.zeros((300, 300, 3), np.uint8), mpp=None)
    good = (tmp_path / "a.tiff").read_bytes()
    shutil.copy(data / "wsi/broken.svs", tmp_path / "a.tiff")
    uri = str(tmp_path / "s")
    for name, mpp in (("a", 0.4), ("b", None)):
        rows = [{"slide": f"{name}.tiff", "x": 9, "y": 9, "label": "mitosis"}]
        file = write_csv(tmp_path / f"{name}.csv", rows)
        add(uri, "d", file, AddOptions(slides=tmp_path, mpp=mpp))
    found = {r["slide"]: (r["status"], r["mpp"]) for r in query_of(uri, "select * from slides")}
    assert found == {"a.tiff": ("unreadable", 0.4), "b.tiff": ("ok", 0.4)}
    (tmp_path / "a.tiff").write_bytes(good)
    ingest(
        Store.open(uri), "d", ["timm:test_resnet"], IngestOptions(weights={"test_resnet": "random"})
    )
    assert query_of(uri, "select status, mpp from slides where slide = 'a.tiff'") == [
        {"status": "ok", "mpp": 0.4}
    ]


def test_the_positive_label_is_not_changed_under_recorded_results(
    tiny: TinyDataset, tmp_path: Path
) -> None:
    uri = str(tmp_path / "s")
    add(uri, "d", tiny.csv, AddOptions())
    with pytest.raises(EmbedstoreError, match="recorded as 'mitotic figure'"):
        add(uri, "d", tiny.csv, AddOptions(positive="non-mitotic figure"))


def test_a_new_mapping_asks_again_which_label_is_positive(
    tiny: TinyDataset, tmp_path: Path
) -> None:
    uri = str(tmp_path / "s")
    add(uri, "d", tiny.csv, AddOptions())
    labels = {"mitotic figure": "zebra", "non-mitotic figure": "apple"}
    with pytest.raises(EmbedstoreError, match="which of the two labels"):
        add(uri, "d", tiny.csv, AddOptions(labels=labels))
    add(uri, "d", tiny.csv, AddOptions(labels=labels, positive="apple"))
    assert query_of(uri, "select positive_label from datasets") == [{"positive_label": "apple"}]
