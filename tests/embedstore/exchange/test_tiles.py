"""Import of h5 files as TRIDENT and CLAM write them: each annotation gets the tile nearest to it."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from embedstore.errors import EmbedstoreError
from embedstore.exchange import import_embeddings
from embedstore.exchange.tiles import TileOptions
from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.sql import connect, fetch_rows
from tests.making.stores import bare_store

# Where TRIDENT stops and CLAM goes on: the same tiles, what is said of them differs.
TRIDENT = {
    "patch_size": 256,
    "patch_size_level0": 512,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "name": "a",
    "savetodir": "out/x",
    "level0_width": 9000,
    "level0_height": 8000,
}
CLAM_PATCHES = {
    "patch_size": 256,
    "patch_level": 1,
    "downsample": (2.0, 2.0),
    "downsampled_level_dim": (4500, 4000),
    "level_dim": (4500, 4000),
    "name": "a",
    "save_path": "out",
}
POINTS = np.random.default_rng(3).uniform(300, 8000, (12, 2)).round(1)
CELLS = [
    {"slide": f"{'ab'[n % 2]}.svs", "source_id": str(n), "x_l0": x, "y_l0": y}
    for n, (x, y) in enumerate(POINTS)
]


def write_h5(
    path: Path,
    corners: np.ndarray,
    features: np.ndarray,
    attrs: dict[str, Any] | None = None,
    chunk: int = 1,
) -> Path:
    """Write one slide's file: resizable datasets, TRIDENT in chunks of one row, CLAM of 32."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as f:
        for name, values in (("features", features), ("coords", corners)):
            f.create_dataset(
                name,
                data=values,
                maxshape=(None, *values.shape[1:]),
                chunks=(chunk, *values.shape[1:]),
            )
        for key, value in (attrs or {}).items():
            f["coords"].attrs[key] = value
    return path


def centred(slide: str, width: int) -> np.ndarray:
    """Top-left corners, whole pixels, of tiles centred on a slide's annotations."""
    points = np.array([(c["x_l0"], c["y_l0"]) for c in CELLS if c["slide"] == slide])
    return np.rint(points - width / 2).astype(np.int64)


def vectors_of(store: Store, model: str) -> dict[str, list[float]]:
    table = store.lance(model_table(model)).to_table(columns=["annotation_id", "vector"])
    return dict(zip(table["annotation_id"].to_pylist(), table["vector"].to_pylist(), strict=True))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return bare_store(str(tmp_path / "store"), "d", CELLS)


@pytest.mark.parametrize(
    ("attrs", "chunk", "shape", "options", "width"),
    [
        (TRIDENT, 1, (6, 4), TileOptions(), 512),
        (TRIDENT, 1, (1, 6, 4), TileOptions(), 512),
        (CLAM_PATCHES, 32, (6, 4), TileOptions(), 512),
        ({}, 32, (6, 4), TileOptions(tile_px_l0=448), 448),
    ],
)
def test_tiles_centred_on_annotations(
    store: Store, tmp_path: Path, attrs: Any, chunk: int, shape: Any, options: Any, width: int
) -> None:
    rng = np.random.default_rng(0)
    expected: dict[str, Any] = {}
    for slide in ("a.svs", "b.svs"):
        features = rng.standard_normal((6, 4)).astype(np.float16 if chunk == 1 else np.float32)
        order = rng.permutation(6)
        corners = centred(slide, width)[order]
        dtype = np.int64 if chunk == 1 else np.int32
        write_h5(
            tmp_path / "h5" / f"{slide[0]}.h5",
            corners.astype(dtype),
            features.reshape(shape),
            attrs,
            chunk,
        )
        ids = [f"d/{slide}/{c['source_id']}" for c in CELLS if c["slide"] == slide]
        expected |= {ids[at]: features[n].astype(np.float32).tolist() for n, at in enumerate(order)}
    report = import_embeddings(store, "d", "mine", tmp_path / "h5", options)
    assert (report.n_imported, report.n_lacking, report.weights) == (12, 0, "imported: h5")
    assert report.dtype == ("float16" if chunk == 1 else "float32")
    assert vectors_of(store, "mine") == expected
    # A corner is rounded to whole pixels, so a centre lies at most half a pixel off in x and in y.
    assert len(report.notes) == 1
    assert float(report.notes[0].rsplit(" ", 1)[1]) <= 0.71
    assert import_embeddings(store, "d", "mine", tmp_path / "h5", options).n_imported == 0


def test_tiles_of_a_grid_need_a_reach_and_are_the_nearest(store: Store, tmp_path: Path) -> None:
    x, y = np.meshgrid(np.arange(0, 9000, 512), np.arange(0, 9000, 512), indexing="ij")
    corners = np.stack([x.ravel(), y.ravel()], axis=1)
    features = np.random.default_rng(1).standard_normal((len(corners), 5)).astype(np.float32)
    file = write_h5(tmp_path / "a.h5", corners, features, TRIDENT)
    mine = [c for c in CELLS if c["slide"] == "a.svs"]
    apart = [
        np.hypot(corners[:, 0] + 256 - c["x_l0"], corners[:, 1] + 256 - c["y_l0"]) for c in mine
    ]
    nearest = [int(np.argmin(a)) for a in apart]
    offsets = np.array([a[n] for a, n in zip(apart, nearest, strict=True)])
    with pytest.raises(
        EmbedstoreError, match=f"nearest is {offsets.min():.1f} px away.*--within PX"
    ):
        import_embeddings(store, "d", "mine", file)
    reach = float(np.sort(offsets)[3]) + 0.01
    report = import_embeddings(store, "d", "mine", file, TileOptions(within_px=reach))
    assert vectors_of(store, "mine") == {
        f"d/a.svs/{c['source_id']}": features[n].tolist()
        for c, n, o in zip(mine, nearest, offsets, strict=True)
        if o <= reach
    }
    said = "\n".join(report.notes)
    taken = np.sort(offsets)[:4]
    assert (
        f"{np.median(taken):.2f} level-0 px away in the median, at most {taken.max():.2f}" in said
    )
    assert f"2 annotations have no tile within {reach:g} level-0 px" in said
    assert "1 slides have no file" in said
    assert (report.n_imported, report.n_lacking) == (4, 8)


def test_a_shared_tile_is_told(store: Store, tmp_path: Path) -> None:
    file = write_h5(tmp_path / "a.h5", np.array([[0, 0]]), np.ones((1, 3), np.float32), TRIDENT)
    report = import_embeddings(store, "d", "mine", file, TileOptions(within_px=1e5))
    assert report.n_imported == 6
    assert any("6 annotations share their tile" in n for n in report.notes)


def test_files_and_slides_are_matched_by_name(store: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    folder = tmp_path / "h5"
    for name, slide in (("a.svs.h5", "a.svs"), ("b.HDF5", "b.svs"), ("c.h5", "a.svs")):
        write_h5(folder / name, centred(slide, 512), rng.random((6, 3), np.float32), TRIDENT)
    write_h5(folder / "notes.txt", np.zeros((1, 2)), np.zeros((1, 3)))
    report = import_embeddings(store, "d", "mine", folder)
    assert report.n_imported == 12
    assert "1 files match no slide of the dataset: c.h5" in report.notes
    write_h5(folder / "a.h5", centred("a.svs", 512), rng.random((6, 3), np.float32), TRIDENT)
    with pytest.raises(EmbedstoreError, match=r"a.h5 and a.svs.h5 are both of slide a.svs"):
        import_embeddings(store, "d", "mine", folder)
    twins = bare_store(
        str(tmp_path / "twins"),
        "d",
        [c | {"slide": s} for c in CELLS[:1] for s in ("a.svs", "a.tiff")],
    )
    with pytest.raises(EmbedstoreError, match="a.h5 may be of slide a.svs or a.tiff"):
        import_embeddings(twins, "d", "mine", folder / "a.h5")
    with pytest.raises(
        EmbedstoreError, match=r"no file matches a slide .files: c.h5; slides: a.svs"
    ):
        import_embeddings(store, "d", "mine", folder / "c.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmbedstoreError, match=r"holds no .h5 or .hdf5 file"):
        import_embeddings(store, "d", "mine", tmp_path / "empty")


def test_a_slide_without_tissue_is_passed_over(store: Store, tmp_path: Path) -> None:
    write_h5(
        tmp_path / "h5" / "a.h5", np.zeros((0, 2), np.int64), np.zeros((0,), np.float32), TRIDENT
    )
    write_h5(tmp_path / "h5" / "b.h5", centred("b.svs", 512), np.ones((6, 3), np.float32), TRIDENT)
    report = import_embeddings(store, "d", "mine", tmp_path / "h5")
    assert (report.n_imported, report.n_lacking) == (6, 6)
    with pytest.raises(EmbedstoreError, match="holds no tile"):
        import_embeddings(store, "d", "mine", tmp_path / "h5" / "a.h5")


FEATURES = np.ones((6, 3), np.float32)
BROKEN = FEATURES.copy()
BROKEN[2, 1] = np.nan


@pytest.mark.parametrize(
    ("features", "attrs", "options", "said"),
    [
        (FEATURES, {}, TileOptions(), "--tile-px-l0 N"),
        (FEATURES, {"patch_size": 256, "patch_level": 1}, TileOptions(), "--tile-px-l0 N"),
        (FEATURES, TRIDENT | {"patch_size_level0": "None"}, TileOptions(), "--tile-px-l0 N"),
        (FEATURES, TRIDENT | {"patch_size_level0": "wide"}, TileOptions(), "not a size in pixels"),
        (FEATURES, TRIDENT, TileOptions(tile_px_l0=256), "says its tiles are 512 px wide"),
        (FEATURES, TRIDENT, TileOptions(within_px=-1), "--within -1: give at least 0"),
        (FEATURES, {}, TileOptions(tile_px_l0=0), "--tile-px-l0 0: give at least 1"),
        (FEATURES[:4], TRIDENT, TileOptions(), "4 features for 6 coords"),
        (FEATURES.astype(np.int32), TRIDENT, TileOptions(), "int32, not floating point"),
        (FEATURES[0], TRIDENT, TileOptions(), r"features have shape \(3,\)"),
        (BROKEN, TRIDENT, TileOptions(), "1 vectors hold NaN or infinity: d/a.svs/4"),
    ],
)
def test_bad_files_are_refused(
    store: Store, tmp_path: Path, features: Any, attrs: Any, options: Any, said: str
) -> None:
    file = write_h5(tmp_path / "a.h5", centred("a.svs", 512), features, attrs)
    tables = store.tables()
    with pytest.raises(EmbedstoreError, match=said):
        import_embeddings(store, "d", "mine", file, options)
    assert store.tables() == tables
    assert fetch_rows(connect(store), "from models") == []


def test_other_hdf5_and_no_hdf5(store: Store, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["feats"] = FEATURES
    with pytest.raises(EmbedstoreError, match="no 'coords'; it holds: feats"):
        import_embeddings(store, "d", "mine", tmp_path / "a.h5")
    (tmp_path / "b.h5").write_text("x")
    with pytest.raises(EmbedstoreError, match="b.h5 cannot be read as HDF5"):
        import_embeddings(store, "d", "mine", tmp_path / "b.h5")
    np.savez(tmp_path / "x.npz", annotation_id=["d/a.svs/0"], vector=FEATURES[:1])
    with pytest.raises(EmbedstoreError, match="--within goes with h5 files only"):
        import_embeddings(store, "d", "mine", tmp_path / "x.npz", TileOptions(within_px=3))


def test_widths_of_two_files_must_agree(store: Store, tmp_path: Path) -> None:
    write_h5(tmp_path / "h5" / "a.h5", centred("a.svs", 512), FEATURES, TRIDENT)
    write_h5(tmp_path / "h5" / "b.h5", centred("b.svs", 512), np.ones((6, 4), np.float32), TRIDENT)
    with pytest.raises(EmbedstoreError, match=r"another width than the first: b.h5 \(4, not 3\)"):
        import_embeddings(store, "d", "mine", tmp_path / "h5")


def test_a_few_of_many_tiles_are_read_one_by_one(store: Store, tmp_path: Path) -> None:
    corners = np.random.default_rng(4).integers(0, 8000, (400, 2))
    corners[7:13] = centred("a.svs", 512)
    features = np.random.default_rng(5).random((400, 3), np.float32)
    few = write_h5(tmp_path / "a.h5", corners, features[None], TRIDENT)
    import_embeddings(store, "d", "few", few)
    expected = {f"d/a.svs/{2 * n}": features[7 + n].tolist() for n in range(6)}
    assert vectors_of(store, "few") == expected
