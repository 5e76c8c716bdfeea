"""`probes run` on more than two labels."""

from pathlib import Path

import numpy as np
import pytest

from embedstore.add import AddOptions, add
from embedstore.store import Store
from embedstore.store.layout import model_table
from probes.runs import RunOptions, run
from probes.scores.results import from_null
from probes.splits.spec import Asked, ManifestSpec
from tests.making.stores import query, vector_table


def test_three_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["slide,x,y,label"] + [f"s{k % 5},{k},0,{'ABC'[k % 3]}" for k in range(240)]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    add(str(tmp_path / "s"), "e", tmp_path / "a.csv", AddOptions(labels={c: c for c in "ABC"}))
    store = Store.open(str(tmp_path / "s"))
    notes = query(store, "select * from annotations")
    vectors = (
        rng.normal(size=(240, 120)) + 3 * np.eye(120)[["ABC".index(r["label"]) for r in notes]]
    )
    store.make_model_table("m", 120)
    store.merge(model_table("m"), vector_table("m", notes, vectors))
    store.merge("models", [{"model": "m", "weights": "w", "weights_sha256": "0"}])
    report = run(store, ManifestSpec("e"), RunOptions(splits=Asked(folds=[0])))
    (auroc,) = [r for r in report.rows if r.metric == "auroc"]
    assert from_null(auroc.value) > 0.9
    assert auroc.n_pos is None
    sums = query(
        store,
        "select annotation_id, sum(score) as total, count(*) as n from predictions group by 1",
    )
    assert all(r["n"] == 3 and r["total"] == pytest.approx(1, abs=1e-5) for r in sums)


def test_a_domain_that_lacks_a_label_of_three_is_left_out_by_name(tmp_path: Path) -> None:
    rows = ["slide,x,y,label,domain"] + [
        f"s{k % 5},{k},0,{'ABC'[k % (2 if k < 120 else 3)]},{'two' if k < 120 else 'three'}"
        for k in range(300)
    ]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    add(str(tmp_path / "s"), "e", tmp_path / "a.csv", AddOptions(labels={c: c for c in "ABC"}))
    store = Store.open(str(tmp_path / "s"))
    store.make_model_table("m", 150)
    keys = ("annotation_id", "dataset", "domain", "label", "slide")
    vectors = np.random.default_rng(0).normal(size=(300, 150))
    notes = query(store, "select * from annotations")
    vectors += 4 * np.eye(150)[["ABC".index(r["label"]) for r in notes]]
    store.merge(
        model_table("m"),
        [
            {**{k: r[k] for k in keys}, "model": "m", "vector": v.tolist()}
            for r, v in zip(notes, vectors, strict=True)
        ],
    )
    store.merge("models", [{"model": "m", "weights": "w", "weights_sha256": "0"}])
    report = run(
        store, ManifestSpec("e", scheme="cross-domain"), RunOptions(splits=Asked(folds=[0]))
    )
    assert {r.train_domain for r in report.rows} == {"three"}
    assert any("train domain two" in n and "'C'" in n for n in report.notes)
    value = {r.eval_domain: r.value for r in report.rows if r.metric == "auroc"}
    assert from_null(value["three"]) > 0.9
    assert value["two"] is None  # a label is absent there: NULL, not a number for fewer labels
