"""`explore`: the page's rows are the store's, its places the components', its page a real one."""

import io
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedstore.errors import EmbedstoreError
from embedstore.reading import atlas, projection, thumbnails
from embedstore.reading.explore import ExploreOptions, explore
from embedstore.reading.pixels import Patches
from embedstore.store import Store
from embedstore.store.sql import connect
from tests.conftest import BROWSERS
from tests.making.browsing import TEXT, opened
from tests.making.commands import BIN, call_command, outside
from tests.making.stores import bare_store, put_embeddings, query, query_of

VIT = "timm:test_vit"


@pytest.fixture(scope="module")
def uri(embedded: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The embedded store, with two runs of each fold for one of its models."""
    uri = str(tmp_path_factory.mktemp("explore") / "store")
    shutil.copytree(embedded, uri)
    run = ("probes", "run", "tiny", "--model", VIT, "--fraction", 1)
    assert call_command(*run, "--method", "uni", "--method", "knn", "--store", uri).code == 0
    return uri


@pytest.fixture(scope="module")
def page(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "map"
    done = call_command("embedstore", "explore", "--model", VIT, "-o", folder, "--store", uri)
    assert done.code == 0, done.err
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / atlas.CELLS).to_pylist()
    return rows


def test_a_row_a_cell_with_what_the_store_says_of_it(uri: str, page: Path) -> None:
    mine = {r["annotation_id"]: r for r in rows_of(page)}
    theirs = query_of(uri, f'select a.* from annotations a semi join "{VIT}" using (annotation_id)')
    assert len(mine) == len(theirs)
    for row in theirs:
        for key in ("label", "domain", "dataset", "slide", "case_id"):
            assert mine[row["annotation_id"]][key] == row[key]


def test_places_are_the_first_two_components(uri: str, page: Path) -> None:
    rows = rows_of(page)
    vectors = {r["annotation_id"]: r["vector"] for r in query_of(uri, f'from "{VIT}"')}
    x = np.array([vectors[r["annotation_id"]] for r in rows], dtype=np.float64)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    places = np.array([(r["pca_x"], r["pca_y"]) for r in rows])
    for k in range(2):
        expected = u[:, k] * s[k]
        sign = np.sign(places[:, k] @ expected)
        assert places[:, k] == pytest.approx(sign * expected, abs=1e-3 * s[0])


def test_error_and_doubt_are_of_probes_that_had_not_seen_the_cell(uri: str, page: Path) -> None:
    """By hand, from the predictions of role test."""
    scores: dict[str, list[float]] = {}
    runs = query_of(uri, f"select distinct run_id from results where model = '{VIT}'")
    for run in runs:
        for row in query_of(
            uri, f"from predictions where run_id = '{run['run_id']}' and role = 'test'"
        ):
            assert row["label"] == "mitotic figure"
            scores.setdefault(row["annotation_id"], []).append(row["score"])
    n_judged = 0
    for row in rows_of(page):
        mine = scores.get(row["annotation_id"])
        if mine is None:
            assert (row["error"], row["doubt"], row["said"]) == ("not tested", None, None)
            continue
        n_judged += 1
        p = float(np.mean(mine))
        is_mitotic = row["label"] == "mitotic figure"
        assert row["doubt"] == pytest.approx(1 - p if is_mitotic else p)
        assert row["said"] == ("mitotic figure" if p >= 0.5 else "non-mitotic figure")
        right = is_mitotic == (p >= 0.5)
        assert row["error"] == ("right" if right else f"{row['label']} taken for {row['said']}")
    assert n_judged == len(scores) > 10


def test_more_than_two_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    cells = [
        {"slide": f"{n % 6}.tiff", "source_id": str(n), "label": "abc"[n % 3]} for n in range(150)
    ]
    store = bare_store(str(tmp_path / "s"), "d", cells)
    x = rng.normal(size=(150, 5)) + 1.2 * np.eye(3, 5)[np.arange(150) % 3]
    put_embeddings(store, "m", [f"d/{c['slide']}/{c['source_id']}" for c in cells], x)
    run = ("probes", "run", "d", "--model", "m", "--fraction", 1, "--method", "uni")
    assert call_command(*run, "--store", store.uri).code == 0
    made = explore(Store.open(store.uri), ExploreOptions("m", pictures=False), tmp_path / "map")
    sums: dict[str, dict[str, list[float]]] = {}
    for p in query(store, "select * from predictions where role = 'test'"):
        sums.setdefault(p["annotation_id"], {}).setdefault(p["label"], []).append(p["score"])
    assert made.n_judged == len(sums)
    for row in rows_of(tmp_path / "map"):
        if (mine := sums.get(row["annotation_id"])) is not None:
            means = {label: float(np.mean(p)) for label, p in mine.items()}
            assert means[row["said"]] == pytest.approx(max(means.values()))
            assert row["doubt"] == pytest.approx(1 - means[row["label"]])


def test_pictures_are_the_patches(uri: str, page: Path) -> None:
    store = Store.open(uri)
    patches = Patches(store, connect(store), "tiny")
    rows = rows_of(page)
    kept = patches.read((r["annotation_id"] for r in rows), thumbnails.PX)
    for row in rows[:12]:
        shown = np.asarray(Image.open(io.BytesIO(row["patch"])).convert("L"), dtype=float)
        there = np.asarray(Image.fromarray(kept[row["annotation_id"]]).convert("L"), dtype=float)
        assert shown.shape == (thumbnails.PX, thumbnails.PX)
        assert np.abs(shown - there).mean() < 6  # JPEG


def test_processes_make_what_one_makes(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(uri)
    ids = [r["annotation_id"] for r in query(store, "select annotation_id from annotations")]
    alone = thumbnails.thumbnails(store, "tiny", ids)
    monkeypatch.setattr(thumbnails, "_PAYS", 1)
    monkeypatch.setattr(thumbnails, "_CHUNK", 20)
    told: list[tuple[int, int]] = []
    many = thumbnails.thumbnails(store, "tiny", ids, lambda *n: told.append(n))
    assert many == alone
    assert told[0] == (0, len(ids))
    assert told[-1] == (len(ids), len(ids))


@given(st.integers(2, 40), st.integers(2, 30), st.integers(0, 2**16))
@settings(max_examples=30)
def test_components_of_any_shape(n: int, d: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    places, shares = projection.principal_components(x)
    s = np.linalg.svd(x.astype(float) - x.mean(axis=0), compute_uv=False)
    assert places.shape == (n, 2)
    assert shares == pytest.approx(tuple(s[:2] ** 2 / (s**2).sum()), abs=1e-4)


def test_components_of_what_does_not_vary() -> None:
    for shape in ((1, 5), (4, 1), (6, 3)):
        places, shares = projection.principal_components(np.ones(shape, dtype=np.float32))
        assert not places.any()
        assert shares == (0, 0)


def test_umap_is_the_same_for_the_same_seed_and_parts_what_lies_apart(tmp_path: Path) -> None:
    cells = [{"slide": "a.tiff", "source_id": str(n)} for n in range(80)]
    ids = [f"d/a.tiff/{n}" for n in range(80)]
    store = bare_store(str(tmp_path / "s"), "d", cells)
    rng = np.random.default_rng(0)
    put_embeddings(
        store, "m", ids, rng.normal(size=(80, 12)) + 30 * np.eye(2, 12)[np.arange(80) % 2]
    )
    maps, n_threads = [], torch.get_num_threads()
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        options = ExploreOptions("m", umap=True, seed=seed, pictures=False)
        made = explore(store, options, tmp_path / name)
        assert any(f"seed {seed}" in note for note in made.notes)
        maps.append(np.array([(r["umap_x"], r["umap_y"]) for r in rows_of(tmp_path / name)]))
    assert torch.get_num_threads() == n_threads  # Numba would take one per core for good
    assert (maps[0] == maps[1]).all()
    assert (maps[0] != maps[2]).any()
    even, odd = maps[0][::2], maps[0][1::2]
    within = np.linalg.norm(even - even.mean(axis=0), axis=1).max()
    assert np.linalg.norm(even.mean(axis=0) - odd.mean(axis=0)) > within
    with pytest.raises(EmbedstoreError, match="needs more than 15 cells, here are 9"):
        explore(store, ExploreOptions("m", where="source_id < '17'", umap=True), tmp_path / "few")


@pytest.fixture
def served(page: Path, uri: str, tmp_path: Path) -> Iterator[str]:
    """The address that `explore --serve` says, of a page it makes."""
    words = ["explore", "--model", VIT, "-o", tmp_path / "map", "--serve", "--port", "0"]
    running = subprocess.Popen(
        [str(BIN / "embedstore"), *map(str, words), "--store", uri],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=outside(),
    )
    assert running.stderr is not None
    address = ""
    for line in running.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
            address = found[0]
            break
    assert address
    yield address
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=30) == 0
    running.stderr.close()


def test_the_page_opens_with_all_cells_and_their_patches(served: str, tmp_path: Path) -> None:
    program = next((b for b in map(shutil.which, BROWSERS) if b), None)
    if program is None:
        pytest.skip("no Chromium here; `make browser` installs Debian's")
    with opened(program, served, tmp_path / "profile") as tab:
        tab.wait(f"{TEXT}.includes('48 / 48 points')")
        text = tab.wait(f"{TEXT}.includes('annotation_id') && {TEXT}")
        for word in ("label", "domain", "error", "doubt", "mitotic figure"):
            assert word in text
        assert tab.wait("document.querySelectorAll('img[src^=\"data:image/jpeg\"]').length") > 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--model", "timm:test_vitt"], 1, "no embeddings of model 'timm:test_vitt'"),
        (["--model", VIT, "--where", "domain = 'none'"], 1, "no embeddings of model"),
        (["tinny", "--model", VIT], 1, "did you mean 'tiny'?"),
        (["--model", VIT, "--where", "1 = 1; drop"], 2, "is no SQL condition"),
    ],
)
def test_wrong_input_leaves_nothing(
    uri: str, tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    done = call_command("embedstore", "explore", *options, "-o", tmp_path / "map", "--store", uri)
    assert done.code == code, done.err
    assert said in done.err
    assert not (tmp_path / "map").exists()


def test_without_the_packages_it_says_what_to_install(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atlas, "PACKAGE", "not_installed_here")
    with pytest.raises(EmbedstoreError, match=r"mitosis-embedstore\[explore\]"):
        explore(Store.open(uri), ExploreOptions(VIT), tmp_path / "map")
    assert not (tmp_path / "map").exists()


def test_a_selection_comes_back_as_a_tag(uri: str, page: Path, tmp_path: Path) -> None:
    """As the page exports one: the selected rows, all columns but the picture."""
    rows = pq.read_table(page / atlas.CELLS)
    chosen = rows.filter(pa.array([d == "right" for d in rows["error"].to_pylist()]))
    for ending in ("parquet", "csv", "json"):
        file = tmp_path / f"selection.{ending}"
        table = chosen.drop_columns(["patch"])
        if ending == "parquet":
            pq.write_table(table, file)
        elif ending == "csv":
            table.to_pandas().to_csv(file, index=False)
        else:
            table.to_pandas().to_json(file, orient="records")
        words = ("embedstore", "tag", f"from {ending}", "--from", file, "--json", "--store", uri)
        assert call_command(*words).json()[0]["n_annotations"] == len(chosen)
