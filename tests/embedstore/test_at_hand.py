"""The cache of files from object stores: bounded, whole or not there, never taken from a reader."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import EmbedstoreError
from embedstore.files import at_hand as module
from embedstore.files.at_hand import at_hand, brought_in, delivered
from embedstore.files.objects import upload
from embedstore.slides.fingerprint import fingerprint
from embedstore.slides.images import probe_patch, read_image
from embedstore.slides.slide import Slide
from tests.making.s3 import environment, s3_server
from tests.making.slides import write_slide


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(url, tmp_path_factory.mktemp("none")).items():
            patch.setenv(name, value)
        yield "s3://bkt"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(module.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setenv(module.LIMIT, str(250e3 / 1e9))
    return tmp_path / "cache"


def put(s3: str, folder: Path, name: str, n: int = 100_000, byte: bytes = b"x") -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(byte * n)
    upload(file, f"{s3}/{folder.name}/{name}")
    return f"{s3}/{folder.name}/{name}"


def kept(cache: Path) -> set[str]:
    return {p.name for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_the_longest_unused_goes_first_and_what_is_open_stays(
    s3: str, cache: Path, tmp_path: Path
) -> None:
    a, b, c, d = (put(s3, tmp_path, f"{k}.bin") for k in "abcd")
    with at_hand(a) as path:
        assert path.read_bytes() == b"x" * 100_000
        with at_hand(b):
            pass
        with at_hand(c):
            assert kept(cache) == {"a.bin", "c.bin"}  # a is older than b, and is in use
    with at_hand(d):
        assert kept(cache) == {"c.bin", "d.bin"} or kept(cache) == {"a.bin", "d.bin"}


def test_a_changed_object_is_fetched_anew(s3: str, cache: Path, tmp_path: Path) -> None:
    uri = put(s3, tmp_path, "a.bin")
    with at_hand(uri) as path:
        first = path.read_bytes()
    put(s3, tmp_path, "a.bin", byte=b"y", n=50_000)
    with at_hand(uri) as path:
        assert path.read_bytes() != first


def test_too_large_and_a_limit_that_is_none_are_named(
    s3: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(s3, tmp_path, "large.bin", 300_000)
    with (
        pytest.raises(EmbedstoreError, match="may hold 0.00; set EMBEDSTORE_CACHE_GB higher"),
        at_hand(uri),
    ):
        pass
    assert not kept(cache)
    monkeypatch.setenv(module.LIMIT, "much")
    with pytest.raises(EmbedstoreError, match="'much', which is no number of GB"), at_hand(uri):
        pass
    with pytest.raises(FileNotFoundError), at_hand(f"{s3}/nothing"):
        pass
    monkeypatch.setenv(module.FOLDER, "/proc/nowhere")
    with pytest.raises(EmbedstoreError, match="nothing can be kept in /proc/nowhere"), at_hand(uri):
        pass


def test_a_slide_of_several_files_comes_whole(s3: str, cache: Path, tmp_path: Path) -> None:
    uri = put(s3, tmp_path, "x.mrxs", 10)
    put(s3, tmp_path, "x/Slidedat.ini", 10)
    put(s3, tmp_path, "x/Data0000.dat", 10)
    put(s3, tmp_path, "y/Data0000.dat", 10)
    with at_hand(uri) as path:
        assert {p.relative_to(path.parent).as_posix() for p in path.parent.rglob("*.*")} == {
            "x.mrxs",
            "x/Slidedat.ini",
            "x/Data0000.dat",
        }


def test_a_slide_is_the_same_from_there_and_stays_while_open(
    s3: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    local = write_slide(tmp_path / "s.tiff", pixels)
    uri = f"{s3}/{tmp_path.name}/s.tiff"
    upload(local, uri)
    assert fingerprint(uri) == fingerprint(local)
    with Slide(uri) as there, Slide(local) as here:
        other = put(s3, tmp_path, "other.bin", 240_000)
        with at_hand(other):
            assert kept(cache) == {"s.tiff", "other.bin"}
        assert there.path == uri
        a, b = (np.asarray(s.read_region(3, 5, 0, 99, 77)) for s in (there, here))
        assert np.array_equal(a, b)


def test_patches_are_read_from_files_and_arrays_there(s3: str, cache: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "p.npy", pixels)
    upload(tmp_path / "p.npy", f"{s3}/{tmp_path.name}/p.npy")
    uri = f"{s3}/{tmp_path.name}/p.npy::2"
    assert np.array_equal(np.asarray(read_image(uri)), pixels[2])
    assert probe_patch(uri)["status"] == "ok"
    assert probe_patch(f"{s3}/{tmp_path.name}/none.png")["status"] == "missing"
    broken = put(s3, tmp_path, "broken.png", 10)
    assert broken in probe_patch(broken)["problem"]


def test_what_is_written_there_is_whole_or_not_there(s3: str, cache: Path, tmp_path: Path) -> None:
    base = f"{s3}/{tmp_path.name}-out"
    with (
        pytest.raises(EmbedstoreError, match=f"{base}/a.txt is wrong"),
        delivered(f"{base}/a.txt") as path,
    ):
        path.write_text("half")
        raise EmbedstoreError(f"{path} is wrong")
    with delivered(f"{base}/page") as folder:
        (folder / "sub").mkdir(parents=True)
        (folder / "index.html").write_text("page")
        (folder / "sub/t.csv").write_text("t")
    with pytest.raises(EmbedstoreError, match="there is nothing at"), brought_in(f"{base}/a.txt"):
        pass
    with brought_in(f"{base}/page") as back:
        assert {p.relative_to(back).as_posix() for p in back.rglob("*") if p.is_file()} == {
            "index.html",
            "sub/t.csv",
        }
    with brought_in(f"{base}/page/index.html") as file:
        assert (file.name, file.read_text()) == ("index.html", "page")
    with ExitStack() as stack:
        assert module.brought(tmp_path, stack) == tmp_path
