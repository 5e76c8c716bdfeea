"""`suggest`: cells that a probe is unsure of, unlike each other, no more of a slide than asked."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import probes
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.store import Store
from probes.studies.suggest import SuggestOptions, choose, share, suggest
from tests.making.commands import call_command
from tests.making.stores import bare_store, put_embeddings, query


def gradients(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """What each cell would add to the gradient of a softmax probe, written out."""
    unit = x - x.mean(axis=0)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    residual = p - np.eye(p.shape[1])[p.argmax(axis=1)]
    each: np.ndarray = np.einsum("nk,nd->nkd", residual, unit)
    return each.reshape(len(x), -1)


def drawn(seed: int, m: int = 60, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k), size=m)
    return rng.normal(size=(m, 8)), p


@given(
    st.integers(0, 2**16),
    st.integers(1, 80),
    st.integers(1, 6),
    st.integers(1, 20),
    st.integers(2, 4),
)
@settings(max_examples=60)
def test_what_is_chosen(seed: int, n: int, n_slides: int, quota: int, k: int) -> None:
    x, p = drawn(seed, k=k)
    slides = np.random.default_rng(seed).integers(0, n_slides, len(x)).astype(str)
    chosen = choose(x, p, slides, n, quota, seed=seed)
    assert len(set(chosen)) == len(chosen)
    counts = [int((slides[chosen] == s).sum()) for s in set(slides)]
    assert max(counts) <= quota
    there = sum(min(quota, int((slides == s).sum())) for s in set(slides))
    assert len(chosen) == min(n, there)
    assert chosen == choose(x, p, slides, n, quota, seed=seed)
    lengths = np.linalg.norm(gradients(x, p), axis=1)
    assert lengths[chosen[0]] == pytest.approx(lengths.max())


def test_the_draw_follows_the_squared_distance_of_gradients() -> None:
    """Of the second cell, over many seeds: its squared distance to the first, or to none at all."""
    x, p = drawn(5, m=12, k=2)
    slides = np.array([str(i) for i in range(12)])
    g = gradients(x, p)
    picks = [choose(x, p, slides, 2, 1, seed=s) for s in range(4_000)]
    first = picks[0][0]
    expected = np.minimum(((g - g[first]) ** 2).sum(axis=1), (g**2).sum(axis=1))
    expected /= expected.sum()
    share_of = np.bincount([b for _, b in picks], minlength=12) / len(picks)
    assert np.abs(share_of - expected).max() < 4 * np.sqrt(0.25 / len(picks))


def test_copies_come_once_and_sure_cells_last() -> None:
    """Of 40 alike unsure cells one is taken; what the probe is sure of comes after all others."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=8)
    x = np.concatenate(
        [np.repeat(one[None], 40, axis=0), rng.normal(size=(10, 8)), rng.normal(size=(50, 8))]
    )
    p = np.full((100, 2), 0.5)
    p[50:] = (1 - 1e-9, 1e-9)
    chosen = choose(x, p, np.arange(100).astype(str), 11, 1)
    assert sum(k < 40 for k in chosen) == 1
    assert sum(40 <= k < 50 for k in chosen) == 10


def test_nothing_to_choose_from() -> None:
    assert choose(np.empty((0, 4)), np.empty((0, 2)), np.empty(0, dtype=object), 5, 1) == []


def test_shares() -> None:
    assert share(200, 10) == 60
    assert share(1, 1000) == 1
    assert share(5, 0) == 15


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """60 labelled cells; 120 candidates: sure ones of both labels, and 30 between the two."""
    rng = np.random.default_rng(1)
    kinds = ["mitotic figure"] * 30 + ["other"] * 30 + ["sure a"] * 45 + ["sure b"] * 45
    kinds += ["between"] * 30
    where = {"mitotic figure": 4, "sure a": 4, "other": -4, "sure b": -4, "between": 0}
    cells = [
        {
            "slide": f"s{n % 6}.tiff",
            "source_id": str(n),
            "label": k if k in ("mitotic figure", "other") else "candidate",
            "category": k,
        }
        for n, k in enumerate(kinds)
    ]
    store = bare_store(str(tmp_path_factory.mktemp("suggest") / "s"), "d", cells)
    x = rng.normal(size=(180, 6))
    x[:, 0] = [where[k] for k in kinds] + rng.normal(scale=0.4, size=180)
    put_embeddings(store, "m", [f"d/{c['slide']}/{c['source_id']}" for c in cells], x)
    bare_store(store.uri, "e", [{"slide": "e.tiff", "source_id": str(n)} for n in range(20)])
    put_embeddings(store, "m", [f"e/e.tiff/{n}" for n in range(20)], rng.normal(size=(20, 6)))
    return Store.open(store.uri, write=True)


CANDIDATES = "label = 'candidate'"


def test_cells_between_the_labels_come_first(store: Store) -> None:
    found, notes = suggest(store, "d", SuggestOptions("m", 25, pool_where=CANDIDATES))
    kinds = {r["annotation_id"]: r["category"] for r in query(store, "from annotations")}
    assert len(found) == 25
    # 30 of 120 lie between; a probe on 60 cells is not very sure of the others either.
    assert sum(kinds[c.annotation_id] == "between" for c in found) > 2 * 25 * 30 / 120
    assert [c.rank for c in found] == list(range(1, 26))
    assert all(c.label == "candidate" and c.said in ("mitotic figure", "other") for c in found)
    assert all(0.5 <= c.probability <= 1 for c in found)
    assert found[0].margin == pytest.approx(2 * found[0].probability - 1)
    assert "25 of 120 cells on 6 of 6 slides, at most 13 a slide" in notes[0]
    assert "60 labelled cells" in notes[0]


def test_a_pool_of_another_dataset(store: Store) -> None:
    options = SuggestOptions("m", 50, pool="e", where="label != 'candidate'")
    found, notes = suggest(store, "d", options)
    assert {c.annotation_id.split("/")[0] for c in found} == {"e"}
    assert len(found) == 20
    few, notes = suggest(
        store, "d", SuggestOptions("m", 50, "e", None, "label != 'candidate'", per_slide=3)
    )
    assert len(few) == 3
    assert any("more were asked for than --per-slide allows" in n for n in notes)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (SuggestOptions("m"), UsageError, "say which cells have no label yet"),
        (SuggestOptions("m", pool="e", method="svm"), UsageError, "unknown method 'svm'"),
        (SuggestOptions("m", 0, pool="e"), UsageError, "at least 1"),
        (SuggestOptions("m", pool="e", tag="a/b"), UsageError, "no name for a tag"),
        (SuggestOptions("m", pool="f"), EmbedstoreError, "the pool: no dataset 'f'"),
        (SuggestOptions("x", pool="e"), EmbedstoreError, "no embeddings of model 'x'"),
        (SuggestOptions("m", pool_where="true"), EmbedstoreError, "the labelled cells: no emb"),
        (SuggestOptions("m", pool_where="false"), EmbedstoreError, "the pool: no embeddings"),
        (
            SuggestOptions("m", pool_where="label != 'other'"),
            EmbedstoreError,
            "have one label, 'other'",
        ),
        (SuggestOptions("m", pool_where="labl = 'x'"), EmbedstoreError, "labl"),
    ],
)
def test_wrong_input(
    store: Store, options: SuggestOptions, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        suggest(store, "d", options)


def test_files_and_tags(store: Store, tmp_path: Path) -> None:
    words = ("probes", "suggest", "d", "--model", "m", "--n", 12, "--pool-where", CANDIDATES)
    at = ("--store", store.uri)
    rows = call_command(*words, "--json", "-o", tmp_path / "next", "--tag", "round 1", *at).json()
    files = sorted((tmp_path / "next").glob("*.geojson"))
    features = [f for file in files for f in json.loads(file.read_text())["features"]]
    assert {f["id"] for f in features} == {r["id"] for r in rows}
    names = {f["id"]: f["properties"]["name"] for f in features}
    assert all(names[r["id"]] == f"{r['said']}? ({r['probability']:.2f})" for r in rows)
    tagged = query(store, "select annotation_id from annotations where 'round 1' in tags")
    assert {r["annotation_id"] for r in tagged} == {r["annotation_id"] for r in rows}
    call_command(*words, "-o", tmp_path / "next.csv", *at)
    written = list(csv.DictReader((tmp_path / "next.csv").read_text().splitlines()))
    assert [r["annotation_id"] for r in written] == [r["annotation_id"] for r in rows]
    again = call_command(
        "embedstore",
        "add",
        "f",
        "--annotations",
        tmp_path / "next.csv",
        "--label",
        "candidate=candidate",
        *at,
    )
    assert again.code == 0, again.err


def test_the_same_from_python(store: Store, capsys: Any) -> None:
    frame = probes.suggest(store.uri, "d", model="m", n=12, pool_where=CANDIDATES)
    found, _ = suggest(store, "d", SuggestOptions("m", 12, pool_where=CANDIDATES))
    assert list(frame["annotation_id"]) == [c.annotation_id for c in found]
    capsys.readouterr()
