"""Images packed many to a file: the pixels that were put in come out, wherever they lie."""

import io
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedstore.annotations.readers import read_annotations
from embedstore.errors import EmbedstoreError, SlideError
from embedstore.files.packed import locate
from embedstore.slides.images import probe_patch, read_image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 12, 10, 3), dtype=np.uint8)


def read(path: str) -> np.ndarray:
    return np.asarray(read_image(path))


@settings(max_examples=20)
@given(
    n=st.integers(1, 6),
    channels_first=st.booleans(),
    form=st.sampled_from(["uint8", "int64", "float 255", "float 1"]),
    kind=st.sampled_from(["npy", "npz", "h5"]),
)
def test_arrays_of_any_form_give_their_pixels(
    tmp_path_factory: pytest.TempPathFactory, n: int, channels_first: bool, form: str, kind: str
) -> None:
    pixels = RNG.integers(0, 256, (n, 12, 10, 3), dtype=np.uint8)
    pixels[0, 0, 0] = 255, 7, 0
    forms: dict[str, np.ndarray] = {
        "uint8": pixels,
        "int64": pixels.astype(np.int64),
        "float 255": pixels.astype(np.float64),
        "float 1": pixels / 255,
    }
    stored = np.moveaxis(forms[form], -1, 1) if channels_first else forms[form]
    file = tmp_path_factory.mktemp("a") / f"images.{kind}"
    if kind == "npy":
        np.save(file, stored)
    elif kind == "npz":
        np.savez(file, x=stored, other=np.arange(3))
    else:
        with h5py.File(file, "w") as h5:
            h5["g/x"] = stored
    member = {"npy": "", "npz": "x::", "h5": "g/x::"}[kind]
    for k in range(n):
        assert (read(f"{file}::{member}{k}") == pixels[k]).all()
    assert probe_patch(Path(f"{file}::{member}0"))["width"] == 10


def test_tables_of_images_give_their_pixels(tmp_path: Path) -> None:
    def encoded(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        return file.getvalue()

    images = [encoded(p) for p in PIXELS]
    plain = pa.table({"png": images, "label": ["a", "b", "a", "b", "a"], "case": list("vwxyz")})
    pq.write_table(plain, tmp_path / "train-0.parquet", row_group_size=2)
    content = read_annotations(tmp_path / "train-0.parquet")
    assert [a.slide for a in content.annotations] == [
        f"train-0.parquet::png::{k}" for k in range(5)
    ]
    assert content.case_key == "case"
    for k in (4, 0, 3, 1, 2):
        assert (read(str(tmp_path / f"train-0.parquet::png::{k}")) == PIXELS[k]).all()
    (split,) = {a.split for a in read_annotations(tmp_path).annotations}
    assert split == "train"


def test_what_is_no_image_is_set_aside_with_words(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 8, 8, 3), 3000))
    row = probe_patch(tmp_path / "a.npy::0")
    assert row["status"] == "unreadable"
    assert "outside of 0 to 255" in row["problem"]
    assert probe_patch(tmp_path / "a.npy::7")["status"] == "unreadable"
    assert probe_patch(tmp_path / "b.npy::0")["status"] == "missing"
    with pytest.raises(SlideError, match="outside of 0 to 255"):
        read_image(tmp_path / "a.npy::1")
    assert locate("a.npy") is None
    assert locate("a::b") is None


def test_two_arrays_that_may_be_the_classes_are_asked(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS, first=np.arange(5), second=np.arange(5))
    with pytest.raises(EmbedstoreError, match="first .5., second .5.; name it with --label-from"):
        read_annotations(tmp_path / "a.npz")


def test_one_file_of_splits_is_read_with_its_labels(tmp_path: Path) -> None:
    """As MedMNIST's: train_images, train_labels, val_images, ... in one file."""
    np.savez(
        tmp_path / "m.npz",
        train_images=PIXELS,
        train_labels=np.array([[0], [1], [0], [1], [2]]),
        test_images=PIXELS[:2],
        test_labels=np.array([[2], [1]]),
    )
    content = read_annotations(tmp_path / "m.npz")
    by_split = [(a.split, a.category) for a in content.annotations]
    assert by_split == [
        *(("train", c) for c in "01012"),
        *(("test", c) for c in "21"),
    ]
