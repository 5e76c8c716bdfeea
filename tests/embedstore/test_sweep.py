"""`ingest --pool ... --mpp-out ...`: every pair from one read of a region and one pass a field."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedstore.add import AddOptions, add
from embedstore.embed import CanEmbed, Embedded, Look, embed_slides
from embedstore.embeddings.identity import how_to_embed
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.ingest import IngestOptions, ingest
from embedstore.ingest.options import Estimate
from embedstore.models.features import pool_each
from embedstore.models.registry import REGISTRY, trained_at
from embedstore.slides.patches import PatchGeometry
from embedstore.slides.reading import Point, SlideJob
from embedstore.slides.regions import read_patch, read_patches
from embedstore.slides.slide import Slide
from embedstore.store import Store
from tests.making.commands import call_command
from tests.making.ingests import RESNET, VIT
from tests.making.models import embedder
from tests.making.slides import TinyDataset
from tests.making.stores import query

POOLS, FIELDS = ("cls", "mean", "centre2", "cls+centre:12um"), (0.25, 0.125)
OPTIONS = IngestOptions(
    weights={VIT: "random"}, dtype="float32", pools=POOLS, mpp_out=FIELDS, patch_cache=False
)


def _command(store: Store, *more: str) -> Any:
    return call_command(
        "embedstore",
        "ingest",
        "tiny",
        "--model",
        VIT,
        "--weights",
        f"{VIT}=random",
        "--dtype",
        "float32",
        "--json",
        "--store",
        store.uri,
        *more,
    )


def test_a_sweep_is_what_each_pair_is_by_itself(store: Store, tiny: TinyDataset) -> None:
    pools = [part for p in POOLS for part in ("--pool", p)]
    fields = [part for f in FIELDS for part in ("--mpp-out", str(f))]
    done = _command(store, *pools, *fields)
    names = [f"{VIT}@{f:g}/{p}" for f in FIELDS for p in POOLS]
    assert [(r["model"], r["embedded"]) for r in done.json()] == [(n, 48) for n in names]
    recorded = {
        r["model"]: r for r in query(store, "select model, pooling, mpp_out, dim from models")
    }
    model = embedder(VIT)
    rows = query(store, "select * from embeddings join annotations using (annotation_id, slide)")
    of = {(r["model"], r["slide"], r["x_l0"], r["y_l0"]): r["vector"] for r in rows}
    for name, (field, pool) in zip(names, [(f, p) for f in FIELDS for p in POOLS], strict=True):
        assert (recorded[name]["pooling"], recorded[name]["mpp_out"]) == (pool, field)
        for row in tiny.rows[::11]:
            x, y = float(row["x"]), float(row["y"])
            with Slide(tiny.slides / row["slide"]) as slide:
                patch = read_patch(slide, x, y, 0.25, PatchGeometry(224, field))
            (alone,) = model.embed_pools(patch[None], [pool], field)
            assert recorded[name]["dim"] == alone.shape[1]
            np.testing.assert_allclose(of[name, row["slide"], x, y], alone[0], atol=1e-5)


def test_one_read_of_a_region_and_one_pass_a_field(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, passes = Counter[str](), Counter[int]()
    read, each = Slide.read_region, pool_each

    def counted(slide: Slide, x: int, y: int, level: int, width: int, height: int) -> Any:
        pixels[slide.path] += width * height
        return read(slide, x, y, level, width, height)

    def passed(network: Any, own: str, x: torch.Tensor, *a: Any) -> Any:
        passes[len(x)] += 1
        return each(network, own, x, *a)

    monkeypatch.setattr(Slide, "read_region", counted)
    monkeypatch.setattr("embedstore.models.embedder.pool_each", passed)
    report = ingest(store, "tiny", [VIT], OPTIONS)
    assert [r.n_embedded for r in report.models] == [48] * 8
    assert sum(pixels.values()) <= 48 * PatchGeometry(224, 0.25).wide().size_px ** 2
    assert sum(n * times for n, times in passes.items()) == 2 * 48 + 2  # a trial patch a field


def test_what_is_there_is_not_made_again_and_what_lacks_is(store: Store) -> None:
    ingest(store, "tiny", [VIT], OPTIONS)
    again = ingest(store, "tiny", [VIT], OPTIONS)
    assert [(r.n_before, r.n_embedded) for r in again.models] == [(48, 0)] * 8
    more = IngestOptions(
        weights={VIT: "random"}, dtype="float32", pools=("centre4", "centre2"), mpp_out=(0.125,)
    )
    report = ingest(store, "tiny", [VIT], more)
    assert [(r.model, r.n_before, r.n_embedded) for r in report.models] == [
        (f"{VIT}@0.125/centre4", 0, 48),
        (f"{VIT}@0.125/centre2", 48, 0),
    ]


def test_a_pool_that_comes_later_has_a_parity_of_its_own(store: Store) -> None:
    options = IngestOptions(weights={VIT: "random"}, dtype="bfloat16", pools=("mean",))
    ingest(store, "tiny", [VIT], options)
    ingest(store, "tiny", [VIT], replace(options, pools=("mean", "centre2")))
    parity = {r["model"]: r["parity"] for r in query(store, "select model, parity from models")}
    assert set(parity) == {f"{VIT}@0.25/mean", f"{VIT}@0.25/centre2"}
    assert all(0.99 < p < 1 for p in parity.values())
    assert len(set(parity.values())) == 2


def test_of_a_batch_each_model_gets_what_it_lacks(tiny: TinyDataset) -> None:
    class Counts:
        name = "counts"
        is_on_gpu = False

        def embed_pools(self, patches: Any, pools: Any, mpp_out: float) -> Any:
            return [np.full((len(patches), 1), len(p) + mpp_out, np.float32) for p in pools]

    network: CanEmbed = Counts()
    narrow, wide = PatchGeometry(32, 0.125), PatchGeometry(32, 0.25)
    looks = [Look(network, narrow, {"a": "x", "b": "xx"}), Look(network, wide, {"c": "x"})]
    row = tiny.rows[0]
    wants: list[dict[str, tuple[str, ...]]] = [{"a": ("",)}, {"b": ("",), "c": ("",)}, {"c": ("",)}]
    points = [Point(str(n), float(row["x"]), float(row["y"]), w) for n, w in enumerate(wants)]
    job = SlideJob(row["slide"], str(tiny.slides / row["slide"]), 0.25, points)
    events = list(embed_slides([job], looks, batch_size=8, workers=1))
    got = {
        e.model: ([p.annotation_id for p in e.points], e.vectors[:, 0].tolist())
        for e in events
        if isinstance(e, Embedded)
    }
    assert got == {"a": (["0"], [1.125]), "b": (["1"], [2.125]), "c": (["1", "2"], [1.25, 1.25])}


@pytest.mark.parametrize("place", [(300.0, 280.0), (311.5, 290.25), (3.0, 620.0)])
def test_regions_read_together_are_those_read_alone(
    tiny: TinyDataset, place: tuple[float, float]
) -> None:
    geometries = [
        PatchGeometry(px, mpp) for px in (64, 96) for mpp in (0.125, 0.2, 0.25, 0.5, 0.9, 1.0)
    ]
    with Slide(tiny.slides / tiny.rows[0]["slide"]) as slide:
        together = read_patches(slide, *place, 0.25, geometries)
        for geometry in geometries:
            assert (together[geometry] == read_patch(slide, *place, 0.25, geometry)).all()


def test_the_models_own_pool_keeps_the_plain_name(store: Store) -> None:
    options = IngestOptions(weights={RESNET: "random"}, dtype="float32", pools=("all",))
    names = [r.model for r in ingest(store, "tiny", [RESNET], options).models]
    assert names == [RESNET, *(f"{RESNET}@0.25/{p}" for p in ("mean", "centre2", "centre4"))]
    plain = IngestOptions(weights={RESNET: "random"}, dtype="float32")
    (report,) = ingest(store, "tiny", [RESNET], plain).models
    assert (report.n_before, report.n_embedded) == (48, 0)


def test_a_variant_is_asked_for_by_its_name(store: Store) -> None:
    ingest(store, "tiny", [VIT], OPTIONS)
    by_name = IngestOptions(weights={VIT: "random"}, dtype="float32")
    pair = f"{VIT}@0.125/centre2"
    (report,) = ingest(store, "tiny", [pair], by_name).models
    assert (report.model, report.n_before, report.n_embedded) == (pair, 48, 0)
    (report,) = ingest(store, "tiny", [f"{VIT}@0.5/mean"], by_name).models
    assert (report.model, report.n_embedded) == (f"{VIT}@0.5/mean", 48)
    with pytest.raises(UsageError, match="names its pool and field; leave --pool"):
        ingest(store, "tiny", [pair], OPTIONS)


def test_what_lacks_a_variant_is_told_the_command(store: Store) -> None:
    named = IngestOptions(
        weights={VIT: "random"}, dtype="float32", pools=("mean",), name="mine", limit=4
    )
    ingest(store, "tiny", [VIT], named)
    told = how_to_embed(store, "tiny", "mine@0.25/mean")
    assert told == f"embedstore ingest tiny --model {VIT}@0.25/mean --as mine"
    done = call_command(*told.split(), "--json", "--store", store.uri)
    assert [(r["model"], r["embedded"]) for r in done.json()] == [("mine@0.25/mean", 44)]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"pools": ("avg",)}, UsageError, "unknown --pool 'avg'"),
        ({"pools": ("centre:90um",)}, EmbedstoreError, "beyond the patch"),
        ({"pools": ("centre15",), "mpp_out": (0.25, 0.125)}, EmbedstoreError, "14 x 14 tokens"),
        ({"mpp_out": (0.25, 25.0)}, UsageError, "--mpp-out 25 is not between"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    store: Store, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        ingest(store, "tiny", [VIT], IngestOptions(weights={VIT: "random"}, **options))
    assert store.models() == []
    assert query(store, "from models") == []


def test_one_model_that_cannot_stops_the_others_before_anything_is_written(store: Store) -> None:
    options = IngestOptions(weights={VIT: "random", RESNET: "random"}, pools=("cls",))
    with pytest.raises(EmbedstoreError, match="ResNet has no class token"):
        ingest(store, "tiny", [VIT, RESNET], options)
    assert store.models() == []


def test_patches_cropped_before_have_one_field(tiny: TinyDataset, tmp_path: Path) -> None:
    folder = tmp_path / "patches"
    for n, row in enumerate(tiny.rows[:8]):
        with Slide(tiny.slides / row["slide"]) as slide:
            image = slide.read_region(int(float(row["x"])), int(float(row["y"])), 0, 64, 64)
        to = folder / ("mitotic figure", "non-mitotic figure")[n % 2] / f"{n}.png"
        to.parent.mkdir(parents=True, exist_ok=True)
        image.save(to)
    uri = str(tmp_path / "s")
    add(uri, "cut", folder, AddOptions())
    opened = Store.open(uri)
    with pytest.raises(UsageError, match="8 patches that were cropped before.*one field of view"):
        ingest(opened, "cut", [VIT], OPTIONS)
    by_name = IngestOptions(weights={VIT: "random"})
    with pytest.raises(UsageError, match="one field of view"):
        ingest(opened, "cut", [f"{VIT}@0.25/cls", f"{VIT}@0.125/cls"], by_name)
    one = IngestOptions(weights={VIT: "random"}, dtype="float32", pools=("centre2",))
    (report,) = ingest(opened, "cut", [VIT], one).models
    assert (report.model, report.n_embedded) == (f"{VIT}@0.25/centre2", 8)


def test_what_a_sweep_takes_is_told_before_it_starts(store: Store) -> None:
    told, seen = list[Estimate](), list[int]()

    def on_progress(done: int, total: int, waited: Any) -> None:
        seen.append(len(told))

    options = replace(OPTIONS, patch_cache=True, workers=2, batch_size=16)
    ingest(store, "tiny", [VIT], options, on_progress, told.append)
    (estimate,) = told
    assert set(seen) == {1}
    dims = sum(r["dim"] for r in query(store, "select dim from models"))
    assert (estimate.n_models, estimate.n_networks, estimate.n_fields) == (8, 1, 2)
    assert estimate.vectors == 48 * 4 * dims
    kept = query(store, "select sum(n_bytes) as n from patches")[0]["n"]
    assert 0.5 < float(kept) / estimate.kept_patches < 2  # the tiny slides are noise
    raw = 48 * 3 * sum(PatchGeometry(224, f).wide().size_px ** 2 for f in FIELDS)
    assert estimate.kept_patches == round(0.63 * raw)
    assert str(estimate).startswith("8 models of 1 networks at 2 fields of view, 48 annotations: ")
    ingest(store, "tiny", [VIT], options, on_estimate=told.append)
    assert len(told) == 1  # nothing to embed


@pytest.mark.parametrize(
    ("name", "mpp_out", "expected"),
    [
        ("uni", 0.5, True),
        ("uni", 0.54, True),
        ("uni", 0.25, False),
        ("virchow2", 0.25, True),
        ("virchow2", 2.0, True),
        ("virchow2", 0.125, False),
        ("dinov2-vits14", 0.125, True),  # nothing is known
    ],
)
def test_the_scale_a_model_was_trained_at(name: str, mpp_out: float, expected: bool) -> None:
    assert trained_at(REGISTRY[name], mpp_out) == expected


def test_a_scale_a_model_was_not_trained_at_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "efficientnet-lite0"
    monkeypatch.setitem(REGISTRY, name, replace(REGISTRY[name], expected_mpp="0.5"))
    options = IngestOptions(weights={name: "random"}, dtype="float32", mpp_out=(0.25, 0.5), limit=2)
    notes = ingest(store, "tiny", [name], options).notes
    assert notes == [f"{name} was trained at 0.5 um/px and is given 0.25"]
