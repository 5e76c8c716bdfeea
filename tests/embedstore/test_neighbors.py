"""`neighbors`: the order and the distances of a search by brute force, whatever the condition."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.reading.neighbors import neighbors
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows, where_clause
from tests.making.commands import call_command
from tests.making.stores import bare_store, put_embeddings

N, DIM = 120, 7
CELLS = [
    {
        "slide": f"{n % 5}.tiff",
        "source_id": str(n),
        "domain": "abc"[n % 3],
        "label": ("mitotic figure", "it's not")[n * 7 % 11 > 4],
    }
    for n in range(N)
]
VECTORS = np.random.default_rng(8).standard_normal((N, DIM)).astype(np.float32)
IDS = [f"{'de'[n % 2]}/{c['slide']}/{c['source_id']}" for n, c in enumerate(CELLS)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two datasets in one model; one annotation without an embedding of it."""
    uri = str(tmp_path_factory.mktemp("n") / "store")
    bare_store(uri, "d", CELLS[::2])
    store = bare_store(uri, "e", [*CELLS[1::2], {"slide": "0.tiff", "source_id": "bare"}])
    put_embeddings(store, "m", IDS, VECTORS)
    return store


def by_brute_force(query: int, metric: str, allowed: set[str]) -> list[tuple[str, float]]:
    x = VECTORS.astype(np.float64)
    if metric == "l2":
        distance = np.sqrt(((x - x[query]) ** 2).sum(axis=1))
    else:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        distance = 1 - unit @ unit[query]
    order = sorted(
        (float(distance[n]), i) for n, i in enumerate(IDS) if i in allowed and n != query
    )
    return [(i, d) for d, i in order]


CONDITIONS = [
    None,
    "",
    "domain = 'b'",
    "domain = 'a' and label = 'it''s not'",
    "dataset = 'd'",
    "slide in ('0.tiff', '3.tiff')",
    "case_id like '_.tiff' and domain != 'c'",
    "x_l0 % 3 < 2",
    "len(source_id) > 2 or slide = '1.tiff'",
    "status = 'ok'",
    "mpp > 3 or domain = 'a' -- b",
]


@settings(max_examples=25, deadline=None)
@given(
    query=st.integers(0, N - 1),
    k=st.integers(1, N + 5),
    metric=st.sampled_from(["cosine", "l2"]),
    where=st.sampled_from(CONDITIONS),
)
def test_as_brute_force_finds_them(
    store: Store, query: Any, k: Any, metric: Any, where: Any
) -> None:
    sql = f"select annotation_id from annotations where {where_clause(where)}"
    allowed = {r["annotation_id"] for r in fetch_rows(connect(store), sql)}
    expected = by_brute_force(query, metric, allowed)
    found = neighbors(store, IDS[query], "m", k=k, where=where, metric=metric)
    assert found.n_searched == len(expected)
    assert [r["annotation_id"] for r in found.rows] == [i for i, _ in expected[:k]]
    np.testing.assert_allclose(
        [r["distance"] for r in found.rows], [d for _, d in expected[:k]], atol=1e-5
    )
    assert [r["rank"] for r in found.rows] == list(range(1, len(found.rows) + 1))


def test_rows_say_what_the_annotations_are(store: Store) -> None:
    (row,) = neighbors(store, IDS[3], "m", k=1).rows
    assert list(row) == [
        "rank",
        "annotation_id",
        "distance",
        "label",
        "domain",
        "dataset",
        "slide",
        "case_id",
    ]
    sql = f"from annotations where annotation_id = '{row['annotation_id']}'"
    (known,) = fetch_rows(connect(store), sql)
    assert all(row[k] == known[k] for k in list(row) if k not in ("rank", "distance"))


@pytest.mark.parametrize(
    ("annotation_id", "model", "options", "said"),
    [
        ("d/0.tiff/999", "m", {}, "no annotation 'd/0.tiff/999'.*an id looks like d/0.tiff/0"),
        ("e/0.tiff/bare", "m", {}, "no embedding of model 'm'; `embedstore ingest e --model m`"),
        (IDS[0], "n", {}, "no embeddings of model 'n'.*there: m"),
        (IDS[0], "m", {"k": 0}, "-k 0: give at least 1"),
        (IDS[0], "m", {"metric": "dot"}, "allowed: cosine, l2"),
        (IDS[0], "m", {"where": "domain ="}, "no SQL condition"),
        (IDS[0], "m", {"where": "nothing = 1"}, "SQL: .*nothing"),
        (IDS[0], "m", {"where": "domain = 'z'"}, "no other embedding of model 'm' meets --where"),
        (IDS[0], "m", {"where": f"annotation_id = '{IDS[0]}'"}, "no other embedding"),
    ],
)
def test_what_cannot_be_answered(
    store: Store, annotation_id: Any, model: str, options: Any, said: str
) -> None:
    with pytest.raises(EmbedstoreError, match=f"(?s){said}"):
        neighbors(store, annotation_id, model, **options)


def test_vectors_without_a_distance(tmp_path: Path) -> None:
    cells = [{"slide": "a", "source_id": str(n)} for n in range(4)]
    store = bare_store(str(tmp_path / "s"), "d", cells)
    ids = [f"d/a/{n}" for n in range(4)]
    vectors = np.array([[0, 0], [3, 4], [6, 8], [3, 4]], dtype=np.float32)
    put_embeddings(store, "m", ids, vectors)
    put_embeddings(store, "huge", ids, np.where(vectors == 0, 1, vectors * np.float32(1e19)))
    put_embeddings(store, "one", ids[:1], vectors[1:2])
    with pytest.raises(EmbedstoreError, match="length zero.*--metric l2"):
        neighbors(store, ids[0], "m")
    assert [r["distance"] for r in neighbors(store, ids[0], "m", metric="l2").rows] == [5, 5, 10]
    # Equal distances come in order of id, and the annotation itself is never there.
    assert [r["annotation_id"] for r in neighbors(store, ids[3], "m").rows] == [ids[1], ids[2]]
    assert [r["annotation_id"] for r in neighbors(store, ids[3], "m", k=1).rows] == [ids[1]]
    with pytest.raises(EmbedstoreError, match="too long or too short for distances in float32"):
        neighbors(store, ids[0], "huge", metric="l2")
    with pytest.raises(EmbedstoreError, match="the only embedding of model 'one'"):
        neighbors(store, ids[0], "one")


def alike(found: list[dict[str, Any]], exact: list[dict[str, Any]]) -> bool:
    """Whether the same ones were found, at distances that differ by rounding alone."""
    a, b = ([r["distance"] for r in rows] for rows in (found, exact))
    return [r["annotation_id"] for r in found] == [r["annotation_id"] for r in exact] and bool(
        np.allclose(a, b, atol=1e-5)
    )


def test_an_index_finds_what_a_scan_finds_and_is_said(tmp_path: Path) -> None:
    n = 3000
    cells = [{"slide": f"{k % 5}.tiff", "source_id": str(k)} for k in range(n)]
    store = bare_store(str(tmp_path / "s"), "d", [*cells, {"slide": "0.tiff", "source_id": "new"}])
    ids = [f"d/{c['slide']}/{c['source_id']}" for c in cells]
    vectors = np.random.default_rng(3).standard_normal((n, 16)).astype(np.float32)
    put_embeddings(store, "m", ids, vectors)
    scan = neighbors(store, ids[7], "m", k=5)
    assert not scan.by_index
    made = neighbors(store, ids[7], "m", k=5, index=True)
    assert made.by_index
    assert made.recall is not None
    assert made.recall > 0.9
    assert alike(made.rows, scan.rows)
    again = neighbors(Store.open(store.uri), ids[7], "m", k=5)
    assert (again.by_index, again.recall) == (True, None)
    assert alike(again.rows, scan.rows)
    for other in ({"exact": True}, {"where": "slide = '2.tiff'"}, {"metric": "l2"}):
        assert not neighbors(store, ids[7], "m", k=5, **other).by_index
    more = np.concatenate((vectors[:1], vectors[7:8] * 1.001))
    put_embeddings(store, "m", [ids[0], "d/0.tiff/new"], more)  # after the index was made
    nearest = neighbors(store, ids[7], "m", k=5, exact=True).rows
    assert alike(neighbors(store, ids[7], "m", k=5).rows, nearest)
    with pytest.raises(UsageError, match="--index makes an index"):
        neighbors(store, ids[7], "m", index=True, exact=True)


def test_the_command_says_what_found_them(tmp_path: Path) -> None:
    store = bare_store(str(tmp_path / "s"), "d", CELLS)
    ids = [f"d/{c['slide']}/{c['source_id']}" for c in CELLS]
    put_embeddings(store, "m", ids, VECTORS)
    words = ("embedstore", "neighbors", ids[3], "--model", "m", "--store", store.uri)
    plain = call_command(*words)
    assert "by an index" not in plain.err
    made = call_command(*words, "--index")
    if made.code == 0:  # of so few, Lance may make none
        assert "found by an index, which may miss some" in made.err
    else:
        assert "no index of model 'm' could be made" in made.err
    assert call_command(*words, "--exact").out == plain.out
