"""Copies: planted ones are found by pixels and by vectors, renamed slides and other datasets too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedstore.store import Store
from probes.reports import report
from probes.runs import RunOptions, run
from probes.splits.spec import ManifestSpec
from probes.studies.copies import copies, copies_in_train, correlation
from tests.making.commands import call_command
from tests.making.stores import bare_store, put_embeddings, query


def filled(uri: str, dataset: str = "cells", n: int = 300, seed: int = 0) -> tuple[Store, Any, Any]:
    rng = np.random.default_rng(seed)
    cells = [
        {
            "slide": f"{dataset}{k % 15:02d}",
            "source_id": f"{k}",
            "label": ("other", "mitotic figure")[k // 15 % 2],
        }
        for k in range(n)
    ]
    store = bare_store(uri, dataset, cells)
    ids = [f"{dataset}/{c['slide']}/{c['source_id']}" for c in cells]
    return store, ids, rng.normal(size=(n, 100)).astype(np.float32)


def test_renamed_slides_are_found_by_vectors_and_counted_in_splits(tmp_path: Path) -> None:
    store, ids, x = filled(str(tmp_path / "s"))
    # Slide cells14 is cells13 under another name; and one pair that is alike, but no copy.
    one, two = (np.array([i.startswith(f"cells/cells{s}/") for i in ids]) for s in ("13", "14"))
    x[two] = x[one]
    x[1] = x[0] + 0.3 * np.random.default_rng(1).normal(size=100)
    put_embeddings(store, "m", ids, x)
    run(store, ManifestSpec("cells", group_by="slide"), RunOptions())
    run(store, ManifestSpec("cells"), RunOptions())
    found, measures, notes = copies(store, "cells")
    assert len(found) == 20
    assert {(c.a.split("/")[1], c.b.split("/")[1]) for c in found} == {("cells13", "cells14")}
    assert {c.found_by for c in found} == {"vectors"}
    assert any("no kept patch" in n for n in notes)
    of: Any = {m.split: m for m in measures if m.metric == "copies_in_train"}
    pair = {c.a: c.b for c in found} | {c.b: c.a for c in found}
    for group, spec in (
        ("slide", "monte-carlo, by slide"),
        ("annotation", "monte-carlo, by annotation"),
    ):
        shares = []
        for fold in range(5):
            rows = query(
                store,
                f"select annotation_id, role from manifests where fold = {fold} and group_by = '{group}'",
            )
            train = {r["annotation_id"] for r in rows if r["role"] == "train"}
            test = [r["annotation_id"] for r in rows if r["role"] == "test"]
            shares.append(np.mean([pair.get(i) in train for i in test]))
        assert of[spec].value == pytest.approx(np.mean(shares))
    report(store, [], tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text()
    assert "20 pairs show the same" in page
    assert "Copies across the split" in page
    notes = run(store, ManifestSpec("cells", group_by="slide"), RunOptions()).notes
    assert any("have a copy in training" in n for n in notes)
    # Found anew, they are not there twice; gone, they are gone.
    assert len(query(store, "from copies")) == 20
    copies(store, "cells")
    assert len(query(store, "from copies")) == 20
    put_embeddings(store, "m", ids, np.random.default_rng(5).normal(size=x.shape))
    copies(store, "cells")
    assert query(store, "from copies") == []


def test_another_dataset_is_compared_too(tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    store, ids, x = filled(uri)
    _, others, y = filled(uri, "other", 120, seed=7)
    y[:30] = x[:30] * 2.0
    put_embeddings(store, "m", ids, x)
    put_embeddings(store, "m", others, y)
    run(store, ManifestSpec("cells"), RunOptions())
    found, measures, _ = copies(Store.open(uri, write=True), "cells", other="other")
    assert {(c.a, c.b) for c in found} == set(zip(ids[:30], others[:30], strict=True))
    (share,) = [m for m in measures if m.metric == "copies_in_train"]
    trained = []
    for fold in range(5):
        rows = query(
            store, f"select annotation_id from manifests where fold = {fold} and role = 'train'"
        )
        trained.append(len({r["annotation_id"] for r in rows} & set(ids[:30])) / 120)
    assert share.value == pytest.approx(np.mean(trained))
    scored = run(store, ManifestSpec("cells"), RunOptions(eval_dataset="other"))
    assert any("the other dataset's annotations" in n for n in scored.notes)
    from embedstore.store.sql import connect

    again = copies_in_train(connect(store), "cells", "other")
    assert again[0][1] == share.value


def test_pixels_decide_where_they_are_kept(tmp_path: Path) -> None:
    """The same picture saved anew as JPEG is a copy; another with the same vector is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "patches"
    folder.mkdir()
    lines = ["path,label,slide"]
    for k in range(40):
        coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)
        image.save(folder / f"p{k}.png")
        lines.append(f"p{k}.png,{('a', 'b')[k % 2]},s{k % 4}")
    Image.open(folder / "p0.png").save(folder / "again.jpg", quality=70)
    lines.append("again.jpg,a,s9")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    uri = str(tmp_path / "s")
    added = call_command(
        "embedstore",
        "add",
        "cells",
        "--annotations",
        folder / "table.csv",
        "--slides",
        folder,
        "--label",
        "a=a",
        "--label",
        "b=b",
        "--positive",
        "a",
        "--store",
        uri,
    )
    assert added.code == 0, added.err
    store = Store.open(uri, write=True)
    ids = [
        r["annotation_id"] for r in query(store, "select annotation_id from annotations order by 1")
    ]
    x = rng.normal(size=(41, 50)).astype(np.float32)
    place = {i: n for n, i in enumerate(ids)}
    first = next(i for i in ids if "p0.png" in i)
    again = next(i for i in ids if "again" in i)
    near = next(i for i in ids if "p5.png" in i)
    twin = next(i for i in ids if "p6.png" in i)
    x[place[again]] = x[place[first]] + 0.05 * rng.normal(size=50)
    x[place[twin]] = x[place[near]]  # the same vector of another picture
    put_embeddings(store, "m", ids, x)
    found, _, notes = copies(store, "cells")
    assert [{c.a, c.b} for c in found] == [{first, again}]
    assert found[0].pixels is not None
    assert found[0].pixels > 0.95
    assert not any("no kept patch" in n for n in notes)


def test_what_shows_nothing_is_like_nothing() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(128, 30, (32, 32))
    assert correlation(one, one * 0.5 + 20) == pytest.approx(1)
    assert correlation(one, np.full((32, 32), 240.0)) is None


def test_wrong_questions_are_named(tmp_path: Path) -> None:
    store, ids, x = filled(str(tmp_path / "s"))
    put_embeddings(store, "m", ids, x)
    at = ["--store", store.uri]
    same = call_command("probes", "copies", "cells", "--other", "cells", *at)
    assert same.code == 2
    none = call_command("probes", "copies", "cells", "--model", "none", *at)
    assert none.code == 1
