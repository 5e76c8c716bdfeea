"""`probes evaluate`: vectors and labels to an answer, the right vector for each cell."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import probes
from embedstore import EmbedstoreError, Store
from tests.making.commands import Ran, call_command

N = 240


@pytest.fixture
def own(tmp_path: Path) -> pd.DataFrame:
    """Vectors that tell a label and, more, a case; written with their labels in another order."""
    rng = np.random.default_rng(5)
    case = rng.integers(0, 24, N)
    label = np.where(rng.random(N) < 0.5, "mitotic figure", "non-mitotic figure")
    vectors = rng.normal(size=(N, 64)).astype(np.float32)
    vectors[:, 0] += 1.5 * (label == "mitotic figure")
    frame = pd.DataFrame(
        {
            "cell": [f"cell {k}" for k in range(N)],
            "label": label,
            "case": [f"c{c}" for c in case],
            "domain": [f"d{c % 3}" for c in case],
        }
    )
    frame.to_csv(tmp_path / "cells.csv", index=False)
    order = rng.permutation(N)
    shuffled = frame.iloc[order]
    named = pd.DataFrame({"name": shuffled["cell"].to_numpy(), "vector": [*vectors[order]]})
    named.to_parquet(tmp_path / "ours.parquet")
    np.save(tmp_path / "theirs.npy", vectors + rng.normal(size=vectors.shape, scale=3))
    return frame.assign(vector=[*vectors])


def evaluate(folder: Path, *words: object) -> Ran:
    return call_command("probes", "evaluate", *words, "--store", folder / "store")


def test_two_commands_lead_to_an_answer_and_a_comparison(tmp_path: Path, own: pd.DataFrame) -> None:
    labels = ("--labels", tmp_path / "cells.csv")
    first = evaluate(tmp_path, tmp_path / "ours.parquet", *labels, "--group-by", "case", "--json")
    (measured,) = [
        r
        for r in first.json()
        if (r["metric"], r["split"]) == ("auroc", "case") and not r["against"]
    ]
    assert (
        f"ours: AUROC {measured['value']:.3f} (95% interval {measured['ci_low']:.3f}" in first.err
    )
    assert "24 cases) on cases not seen; random cells would have shown" in first.err
    second = evaluate(tmp_path, tmp_path / "theirs.npy", *labels, "--in-order", "--json")
    assert {r["model"] for r in second.json()} >= {"ours", "theirs"}
    less = [r for r in second.json() if r["metric"] == "auroc_difference" and r["split"] == "case"]
    assert [(r["model"], r["against"]) for r in less] == [("ours", "theirs")]
    store = Store(tmp_path / "store")
    told = store.sql(
        "select a.slide as cell, a.label, a.case_id, a.domain, e.vector from annotations a join "
        "embeddings e using (annotation_id) where model = 'ours'"
    ).set_index("cell")
    for _, row in own.iterrows():
        there = told.loc[row["cell"]]
        assert (there["label"], there["case_id"], there["domain"]) == tuple(
            row[["label", "case", "domain"]]
        )
        assert (np.asarray(there["vector"]) == row["vector"]).all()
    compared = call_command(
        "probes", "compare", "cells", "--group-by", "case", "--json", "--store", store.uri
    )
    assert {(r["a"], r["b"]) for r in compared.json()} == {("uni:ours", "uni:theirs")}
    assert "no file yet" not in call_command("embedstore", "status", "--store", store.uri).err


def test_again_nothing_is_stored_or_fitted_twice(tmp_path: Path, own: pd.DataFrame) -> None:
    words = (tmp_path / "ours.parquet", "--labels", tmp_path / "cells.csv", "--json")
    first, before = evaluate(tmp_path, *words), counts(tmp_path)
    assert evaluate(tmp_path, *words).json() == first.json()
    assert counts(tmp_path) == before


def test_a_probe_that_learns_nothing_is_told_and_another_learns(
    tmp_path: Path, own: pd.DataFrame
) -> None:
    """The penalty of `uni` is the stronger the fewer numbers a vector has."""
    few = np.stack(own["vector"].tolist())[:, :8]
    np.save(tmp_path / "few.npy", few)
    words = (tmp_path / "few.npy", "--labels", tmp_path / "cells.csv", "--in-order")
    ran = evaluate(tmp_path, *words)
    assert "few: AUROC 0.500 (no interval" in ran.err
    assert "probes learnt nothing, the penalty of uni outweighs these vectors; --method logreg" in (
        ran.err
    )
    other = evaluate(tmp_path, *words, "--method", "logreg", "--json")
    values = [r["value"] for r in other.json() if (r["metric"], r["split"]) == ("auroc", "case")]
    assert values[0] > 0.75
    assert "learnt nothing" not in other.err


def counts(folder: Path) -> list[Any]:
    tables = ("annotations", "embeddings", "results", "predictions")
    query = " union all ".join(f"select '{t}' as t, count(*) as n from {t}" for t in tables)
    rows: list[Any] = Store(folder / "store").sql(f"{query} order by t").values.tolist()
    return rows


def test_from_frames_and_arrays_as_from_files(tmp_path: Path, own: pd.DataFrame) -> None:
    files = evaluate(
        tmp_path, tmp_path / "ours.parquet", "--labels", tmp_path / "cells.csv", "--json"
    )
    expected = {(r["metric"], r["split"]): r["value"] for r in files.json()}
    vectors, labels = np.stack(own["vector"].tolist()), own.drop(columns="vector")
    wide = pd.DataFrame(vectors, index=own["cell"])
    together = own.rename(columns={"cell": "id"})
    calls: dict[str, Any] = {
        "array": lambda at: probes.evaluate(at, vectors, labels=labels, in_order=True),
        "wide": lambda at: probes.evaluate(at, wide, labels=labels.sample(frac=1, random_state=1)),
        "one frame": lambda at: probes.evaluate(at, together, positive="mitotic figure"),
    }
    for name, call in calls.items():
        rows = call(str(tmp_path / name))
        found = {(r["metric"], r["split"]): r["value"] for r in rows.to_dict("records")}
        # One dataset's name and the same ids: the same splits, and the same values.
        assert found == pytest.approx(expected), name


def test_without_a_case_it_says_what_it_cannot_see(tmp_path: Path, own: pd.DataFrame) -> None:
    own[["cell", "label"]].to_csv(tmp_path / "few.csv", index=False)
    ran = evaluate(tmp_path, tmp_path / "ours.parquet", "--labels", tmp_path / "few.csv")
    assert ran.code == 0, ran.err
    assert "on random cells" in ran.err
    assert "no two annotations share a slide" in ran.err
    asked = ("--labels", tmp_path / "few.csv", "--group-by", "case")
    refused = evaluate(tmp_path, tmp_path / "ours.parquet", *asked)
    assert refused.code == 1
    assert "--column case=NAME" in refused.err


@pytest.mark.parametrize(
    "what", ["nan", "wide", "unpaired", "no label", "no case", "a view's name"]
)
def test_bad_input_leaves_no_store(tmp_path: Path, own: pd.DataFrame, what: str) -> None:
    vectors = np.stack(own["vector"].tolist())
    labels: Path = tmp_path / "cells.csv"
    if what == "nan":
        vectors[7, 3] = np.nan
    if what == "no label":
        own.assign(label=["", *own["label"].tolist()[1:]])[["cell", "label"]].to_csv(labels)
    rows = vectors[:-1] if what == "wide" else vectors
    np.save(tmp_path / "v.npy", rows)
    if what == "no case":
        own[["cell", "label"]].to_csv(labels, index=False)
    order = () if what == "unpaired" else ("--in-order",)
    more = {"no case": ("--group-by", "case"), "a view's name": ("--model", "results")}
    ran = evaluate(tmp_path, tmp_path / "v.npy", "--labels", labels, *order, *more.get(what, ()))
    assert ran.code == 1
    said = {
        "nan": "NaN",
        "wide": "239 vectors",
        "unpaired": "--in-order",
        "no label": "no label",
        "no case": "--column case=NAME",
        "a view's name": "cannot name a model",
    }
    assert said[what] in ran.err
    assert not (tmp_path / "store").exists()


def test_other_cells_of_a_dataset_are_not_mixed_with_these(
    tmp_path: Path, own: pd.DataFrame
) -> None:
    uri = str(tmp_path / "store")
    evaluate(tmp_path, tmp_path / "ours.parquet", "--labels", tmp_path / "cells.csv")
    vectors = np.stack(own["vector"].tolist())
    with pytest.raises(EmbedstoreError, match="has other cells; say --dataset"):
        probes.evaluate(uri, vectors, labels=own[["label", "case"]], in_order=True, dataset="cells")


def test_any_other_class_is_what_one_known_label_is_told_from(
    tmp_path: Path, own: pd.DataFrame
) -> None:
    """Not left out, as beside two known ones: then nothing could be told apart."""
    for name, other in (("one", "tumour cell"), ("two", "Hard negative")):
        classes = np.where(own["label"] == "mitotic figure", "Mitosis", other)
        own.assign(label=classes).drop(columns="vector").to_csv(
            tmp_path / f"{name}.csv", index=False
        )
        words = (
            tmp_path / "theirs.npy",
            "--labels",
            tmp_path / f"{name}.csv",
            "--in-order",
            "--json",
        )
        done = evaluate(tmp_path, *words)
        assert done.code == 0, done.err
        assert ("taken as they are" in done.err) == (name == "one")
    rows = Store(tmp_path / "store").sql(
        "select dataset, label, count(*) as n from annotations group by all order by all"
    )
    n = int((own["label"] == "mitotic figure").sum())
    assert rows.to_numpy().tolist() == [
        ["one", "mitotic figure", n],
        ["one", "tumour cell", N - n],
        ["two", "mitotic figure", n],
        ["two", "non-mitotic figure", N - n],
    ]
    positive = Store(tmp_path / "store").sql("select distinct positive_label as p from datasets")
    assert list(positive["p"]) == ["mitotic figure"]
