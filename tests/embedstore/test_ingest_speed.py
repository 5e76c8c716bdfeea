"""However fast an ingest goes, its pixels and vectors are those of the slow way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedstore.add import AddOptions, add
from embedstore.embed import Embedded, Look, SlideFailed, Waited, embed_slides
from embedstore.errors import EmbedstoreError
from embedstore.ingest import IngestOptions, ingest
from embedstore.ingest import plan as planning
from embedstore.ingest.plan import plan
from embedstore.models.features import pool_each
from embedstore.slides.patches import PLAIN, PatchGeometry
from embedstore.slides.reading import Point, SlideJob
from embedstore.slides.regions import read_patch
from embedstore.slides.slide import Slide
from embedstore.store import Store
from tests.making.ingests import RANDOM, RESNET, VIT
from tests.making.models import PATCHES, embedder
from tests.making.slides import TinyDataset, write_csv, write_slide
from tests.making.stores import query


def vectors(store: Store) -> dict[Any, np.ndarray]:
    rows = query(store, "select annotation_id, vector from embeddings")
    return {r["annotation_id"]: np.array(r["vector"]) for r in rows}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_vectors_whatever_the_batch_and_the_threads(
    tiny: TinyDataset, tmp_path: Path, dtype: str
) -> None:
    """Annotations in a cluster, so that regions are shared; one at a time is the slow way."""
    rng = np.random.default_rng(3)
    rows = [
        {**tiny.rows[0], "x": str(round(x, 1)), "y": str(round(y, 1))}
        for x, y in rng.uniform(150, 450, (40, 2)).tolist()
    ]
    table = write_csv(tmp_path / "a.csv", rows)
    found = []
    for n, (batch, workers, keep) in enumerate([(1, 1, False), (7, 3, True), (64, 2, False)]):
        uri = str(tmp_path / f"s{n}")
        add(uri, "t", table, AddOptions(slides=tiny.slides))
        store = Store.open(uri, write=True)
        options = IngestOptions(
            weights={VIT: "random"},
            dtype=dtype,
            batch_size=batch,
            workers=workers,
            patch_cache=keep,
        )
        ingest(store, "t", [VIT], options)
        found.append(vectors(store))
    assert len(found[0]) == 40
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for key, slow in found[0].items():
            if dtype == "float32":
                np.testing.assert_allclose(other[key], slow, atol=1e-5)
            cosine = other[key] @ slow / np.linalg.norm(other[key]) / np.linalg.norm(slow)
            assert cosine > 0.9999


class Mean:
    """A network that gives the mean of a patch; on the processor, or as if it were on a GPU."""

    name = "mean"

    def __init__(self, is_on_gpu: bool, fails_at: int | None = None) -> None:
        """Fail at the nth pass."""
        self.is_on_gpu, self.fails_at, self.n = is_on_gpu, fails_at, 0

    def embed_pools(self, patches: Any, pools: Any, mpp_out: float) -> Any:
        """Return one number a patch."""
        self.n += 1
        if self.n == self.fails_at:
            raise EmbedstoreError("no more")
        return [patches.mean(axis=(1, 2, 3), dtype=np.float32)[:, None] for _ in pools]


@pytest.fixture
def job(tmp_path: Path) -> SlideJob:
    pixels = np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8)
    path = write_slide(tmp_path / "s.tiff", pixels)
    points = [Point(str(k), 40.0 + 10 * k, 250, {"m": [PLAIN]}) for k in range(41)]
    return SlideJob("s", str(path), 0.25, points)


def events(job: SlideJob, network: Mean, waited: Waited | None = None) -> Iterator[Any]:
    looks = [Look(network, PatchGeometry(64, 0.25), {"m": "own"})]
    return embed_slides([job], looks, batch_size=4, workers=2, waited=waited)


@pytest.mark.parametrize("is_on_gpu", [False, True])
def test_vectors_come_in_order_with_their_points_and_what_was_waited_for(
    job: SlideJob, is_on_gpu: bool
) -> None:
    waited = Waited()
    found = [e for e in events(job, Mean(is_on_gpu), waited) if isinstance(e, Embedded)]
    assert [len(e.points) for e in found] == [4] * 10 + [1]
    assert [p for e in found for p in e.points] == job.points
    with Slide(job.path) as slide:
        expected = [
            read_patch(slide, p.x_l0, p.y_l0, 0.25, PatchGeometry(64, 0.25)).mean(dtype=np.float32)
            for p in job.points
        ]
    np.testing.assert_allclose(np.concatenate([e.vectors[:, 0] for e in found]), expected)
    assert waited.reading > 0
    assert waited.model > 0
    assert sum(waited.shares().values()) == pytest.approx(1)


@pytest.mark.parametrize("is_on_gpu", [False, True])
def test_a_network_that_fails_ends_the_loop_and_what_came_before_is_there(
    job: SlideJob, is_on_gpu: bool
) -> None:
    network, found = Mean(is_on_gpu, fails_at=5), list[Any]()
    with pytest.raises(EmbedstoreError, match="no more"):
        found.extend(events(job, network))
    assert len(found) == 4
    assert not any(isinstance(e, SlideFailed) for e in found)


def out_of_memory_above(n: int, error: Exception) -> Any:
    def pool(network: Any, own: str, x: torch.Tensor, *a: Any) -> Any:
        if len(x) > n:
            raise error
        return pool_each(network, own, x, *a)

    return pool


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_pass_that_does_not_fit_is_halved(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expected = embedder(VIT).embed(PATCHES)
    model = embedder(VIT)
    monkeypatch.setattr("embedstore.models.embedder.pool_each", out_of_memory_above(2, error))
    np.testing.assert_allclose(model.embed(PATCHES), expected, atol=1e-5)
    assert model.most == 1  # of six, three, one
    report = ingest(
        store,
        "tiny",
        [VIT],
        IngestOptions(weights={VIT: "random"}, dtype="float32", batch_size=16),
    )
    assert report.models[0].n_embedded == 48
    said = f"{VIT} did not fit into memory with more than 2 patches a pass: the rest went so"
    assert report.notes == [said]


def test_one_patch_that_does_not_fit_says_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = embedder(VIT)
    error = torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr("embedstore.models.embedder.pool_each", out_of_memory_above(0, error))
    with pytest.raises(EmbedstoreError, match="ran out of memory with one patch; .*--patch-px"):
        model.embed(PATCHES)
    monkeypatch.setattr(
        "embedstore.models.embedder.pool_each", out_of_memory_above(0, RuntimeError("a shape"))
    )
    with pytest.raises(RuntimeError, match="a shape"):
        model.embed(PATCHES)


def test_the_plan_is_the_same_in_portions_and_a_limit_takes_the_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [(j.slide, j.points) for j in plan(store, "tiny", ["m"]).jobs()]
    assert sum(len(points) for _, points in whole) == 48
    monkeypatch.setattr(planning, "PORTION", 1)
    todo = plan(store, "tiny", ["m", "n"], ("r0", "r90"))
    assert [j.slide for j in todo.jobs()] == [slide for slide, _ in whole]
    assert [p.annotation_id for j in todo.jobs() for p in j.points] == [
        p.annotation_id for _, points in whole for p in points
    ]
    assert all(
        p.wants == {"m": (PLAIN, "r0", "r90"), "n": (PLAIN, "r0", "r90")}
        for j in todo.jobs()
        for p in j.points
    )
    # A patch that is wanted by itself and unturned is embedded once.
    assert (todo.n, todo.n_vectors) == (48, {"m": 96, "n": 96})
    first = plan(store, "tiny", ["m"], limit=15)
    ids = [p.annotation_id for j in first.jobs() for p in j.points]
    assert ids == [p.annotation_id for _, points in whole for p in points][:15]
    sampled = [p.annotation_id for j in todo.sample(5) for p in j.points]
    in_order = [p.annotation_id for _, points in whole for p in points]
    assert sampled == [in_order[round(k)] for k in np.linspace(0, 47, 5)]


def test_what_goes_wrong_in_writing_ends_the_ingest(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = Store.merge

    def full(self: Store, name: str, *a: Any, **k: Any) -> Any:
        if name.startswith("embeddings."):
            raise OSError(28, "No space left on device")
        return merge(self, name, *a, **k)

    monkeypatch.setattr(Store, "merge", full)
    with pytest.raises(OSError, match="No space left"):
        ingest(store, "tiny", [RESNET], RANDOM)
    monkeypatch.undo()
    (report,) = ingest(store, "tiny", [RESNET], RANDOM).models
    assert (report.n_before, report.n_embedded) == (0, 48)


def test_models_of_unlike_input_size_in_one_command(store: Store) -> None:
    """One that takes any size beside one that takes its own alone: an error, nothing written."""
    fixed = "timm:mixer_s32_224"
    weights = {VIT: "random", fixed: "random"}
    small = IngestOptions(weights=weights, dtype="float32", patch_px=112)
    with pytest.raises(EmbedstoreError, match=f"{fixed} cannot embed patches of 112 px"):
        ingest(store, "tiny", [VIT, fixed], small)
    assert query(store, "select * from models") == []
    large = IngestOptions(weights=weights, dtype="float32", limit=3)
    assert [r.n_embedded for r in ingest(store, "tiny", [VIT, fixed], large).models] == [3, 3]


def test_a_model_that_may_have_seen_the_slides_is_told(tiny: TinyDataset, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    name = "TCGA-CR-7395-01A-01-TS1.tiff"
    (folder / name).write_bytes((tiny.slides / tiny.rows[0]["slide"]).read_bytes())
    rows = [{**r, "slide": name} for r in tiny.rows if r["slide"] == tiny.rows[0]["slide"]]
    uri = str(tmp_path / "s")
    add(uri, "t", write_csv(tmp_path / "a.csv", rows), AddOptions(slides=folder))
    store = Store.open(uri, write=True)
    options = IngestOptions(weights={"lunit-s16": "random"}, dtype="float32", limit=2)
    (note,) = ingest(store, "t", ["lunit-s16"], options).notes
    assert note == (
        "lunit-s16 was trained on TCGA, and 1 of 1 slides are named as its: it may have seen these "
        "very slides"
    )
