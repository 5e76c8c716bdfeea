"""Damaged files of every format, and files that claim what they are not: read, or refused in words."""

import json
import random
import resource
import struct
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.database import InMemoryExampleDatabase
from hypothesis.strategies import DataObject

from embedstore.errors import EmbedstoreError
from tests.making.slides import write_csv
from tests.torture.mutants import INPUTS, NAMES, Readers, mutant
from tests.torture.processes import begin
from tests.torture.scenes import AS_M
from tests.torture.told import IS_FULL, SEED, Tally, amount

SECONDS, MEGABYTES = 10.0, 1500
"""What a damaged file of a few kilobytes may take of time, and of memory beyond the reader's own."""


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    if not INPUTS.is_dir():
        pytest.skip("the small inputs are not beside this checkout (../shared/data/inputs)")
    return Readers(tmp_path_factory.mktemp("readers"))


@pytest.mark.parametrize("name", NAMES)
def test_no_damaged_file_ends_in_a_traceback(
    readers: Readers, name: str, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    row = tally(f"mutants of {name.split()[0]} files")
    reader = readers.reader(name)
    reader_path = tmp_path / f"damaged{reader.suffix}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @seed(SEED)
    @settings(
        max_examples=amount(3, 75),
        database=InMemoryExampleDatabase(),
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(data=st.data())
    def tried(data: DataObject) -> None:
        choice = random.Random(data.draw(st.integers(0, 2**64 - 1), label="damage"))
        reader_path.write_bytes(mutant(reader.raw, reader.suffix, choice))
        row.tried += 1
        started = time.monotonic()
        try:
            with warnings.catch_warnings(action="ignore"):
                reader.read(reader_path)
        except EmbedstoreError:
            pass  # refused, in words
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as e:  # a panic of Rust's is no Exception
            raise AssertionError(f"{name}: {traceback.format_exc()}") from e
        assert time.monotonic() - started < SECONDS, f"{name}: hangs"
        row.survived += 1

    tried()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"{name}: {grown:.0f} MB"


# What claims to be large, and is small.


def huge_tiff(path: Path) -> None:
    """A tiled TIFF of a million pixels a side of which no tile is there."""
    n, tile = 10**6, 2**15
    n_tiles = (n // tile + 1) ** 2
    entries = [
        *((256, 4, 1, n), (257, 4, 1, n), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((277, 3, 1, 1), (322, 4, 1, tile), (323, 4, 1, tile)),
        *((324, 4, n_tiles, 8 + 2 + 10 * 12 + 4), (325, 4, n_tiles, 8 + 2 + 10 * 12 + 4)),
    ]
    ifd = struct.pack("<H", len(entries))
    ifd += b"".join(struct.pack("<HHII", *e) for e in entries) + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + ifd + b"\0" * 4 * n_tiles)


def png(path: Path, width: int, height: int, content: bytes) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def claims_png(path: Path) -> None:
    png(path, 10**6, 10**6, zlib.compress(b"\0" * 1000))


def bomb_png(path: Path) -> None:
    """Forty thousand pixels a side in five megabytes: 4.8 GB of pixels."""
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + 3 * 40_000)
    content = b"".join(packer.compress(row) for _ in range(40_000)) + packer.flush()
    png(path, 40_000, 40_000, content)


def claims_npz(path: Path) -> None:
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1024), }"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("annotation_id.npy", npy)
        z.writestr("vector.npy", npy)


def bomb_npz(path: Path) -> None:
    """Eight gigabytes of zeros in eight megabytes."""
    n = 2 * 10**6
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, 1024), }}".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        with z.open("vector.npy", "w", force_zip64=True) as f:
            f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n")
            part = b"\0" * 2**20
            for _ in range(4 * n * 1024 // 2**20):
                f.write(part)
        with z.open("annotation_id.npy", "w") as f:
            np.save(f, np.array(["x"] * 10))


def claims_safetensors(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")


def wide_safetensors(path: Path) -> None:
    head = json.dumps(
        {
            "patch_embed.proj.weight": {
                "dtype": "F32",
                "shape": [2**30, 2**30],
                "data_offsets": [0, 2**62],
            }
        }
    ).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head)


def claims_npy(path: Path) -> None:
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000, 3), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n")


def claims_vectors(path: Path) -> None:
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n")


def claims_h5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as f:
        f.create_dataset("features", (2**40, 1024), "f4", chunks=(1, 1024))
        f.create_dataset("coords", (2**40, 2), "i8", chunks=(1024, 2))


def deep_json(path: Path) -> None:
    path.write_text("[" * 10**6 + "]" * 10**6)


def long_line(path: Path) -> None:
    path.write_text("slide,x,y,label\n" + "a" * 50_000_000 + ",1,2,mitosis\n")


def many_columns(path: Path) -> None:
    path.write_text(",".join(f"c{n}" for n in range(200_000)) + "\n" + "1," * 200_000 + "\n")


def slow_view(path: Path) -> None:
    """A database whose table is a view that counts to ten to the eighteenth."""
    import sqlite3

    with sqlite3.connect(path) as db:
        db.executescript(
            "create table Slides (uid integer, filename text, width integer, height integer);"
            "create table Annotations (uid integer, slide integer, type integer, agreedClass integer,"
            "guid text, deleted integer); create table Classes (uid integer, name text);"
            "create view Annotations_coordinates as with recursive c(n) as (select 1 union all "
            "select n + 1 from c where n < 1000000000000000000) select n as annoId, n as slide, "
            "n as coordinateX, n as coordinateY, n as orderIdx from c;"
        )
    db.close()


def odd_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.chunked_array([pa.array(["x" * 1000] * 100_000).dictionary_encode()] * 20)
    n = len(column)
    table = pa.table({"annotation_id": column, "vector": pa.array([[0.0]] * n)})
    pq.write_table(table, path, compression="zstd")


BOMBS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "a TIFF of 10^6 x 10^6": ("slide", "a.tiff", huge_tiff),
    "a PNG that claims 10^6 x 10^6": ("patch", "a.png", claims_png),
    "a PNG of 4.8 GB in 5 MB": ("patch", "a.png", bomb_png),
    "an npz that claims 4 PB": ("import", "v.npz", claims_npz),
    "an npz of 8 GB in 8 MB": ("import", "v.npz", bomb_npz),
    "vectors of 10^15 numbers": ("evaluate", "v.npy", claims_vectors),
    "vectors of 8 GB in 8 MB": ("evaluate", "v.npz", bomb_npz),
    "a safetensors header of 2^60": ("weights", "w.safetensors", claims_safetensors),
    "a safetensors tensor of 2^60": ("weights", "w.safetensors", wide_safetensors),
    "an npy of 10^18 patches": ("add", "images.npy", claims_npy),
    "an h5 of 2^40 rows": ("import", "a.h5", claims_h5),
    "JSON a million deep": ("add", "a.json", deep_json),
    "a line of 50 MB": ("add", "a.csv", long_line),
    "200,000 columns": ("add", "a.csv", many_columns),
    "a view without end": ("add", "a.sqlite", slow_view),
    "Parquet that unpacks to 2 GB": ("import", "v.parquet", odd_parquet),
}


SHORT = ("a TIFF of 10^6 x 10^6", "an npz of 8 GB in 8 MB", "an h5 of 2^40 rows", "200,000 columns")
"""What is in `make test`."""


@pytest.mark.parametrize("name", BOMBS if IS_FULL else SHORT)
def test_what_claims_to_be_large_is_refused_in_time_and_memory(
    name: str, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    row = tally("files that claim or unpack to much")
    row.tried += 1
    kind, file, make = BOMBS[name]
    path = tmp_path / "data" / file
    path.parent.mkdir()
    make(path)
    store = tmp_path / "s"
    cells = [
        {"slide": "a.tiff", "x": 9 * k, "y": 9, "label": ("mitosis", "x")[k % 2]} for k in range(9)
    ]
    table = write_csv(tmp_path / "cells.csv", cells)
    of_patch = [{"path": file, "label": "mitosis"}, {"path": "b.png", "label": "x"}]
    patches = write_csv(tmp_path / "patches.csv", of_patch)
    slides = ("--slides", path.parent, "--mpp", "0.25")
    usual = ("embedstore", "add", "d", "--annotations", table, "--label", "x=other")
    to_do: dict[str, list[tuple[object, ...]]] = {
        "slide": [(*usual, *slides), ("embedstore", "ingest", "d", *AS_M)],
        "patch": [
            ("embedstore", "add", "d", "--annotations", patches, "--slides", path.parent),
            ("embedstore", "ingest", "d", *AS_M),
        ],
        "import": [usual, ("embedstore", "import", "d", path, "--model", "m")],
        "evaluate": [("probes", "evaluate", path, "--labels", table, "--in-order")],
        "weights": [
            usual,
            ("embedstore", "ingest", "d", *AS_M[:4], "--weights", f"{AS_M[1]}={path}"),
        ],
        "add": [("embedstore", "add", "d", "--annotations", path)],
    }
    for words in to_do[kind]:
        started = time.monotonic()
        command = begin([*words, "--store", store], tmp_path)
        code = command.wait()
        assert code in (0, 1, 2), f"{code}: {command.err}"
        assert "Traceback" not in command.err, command.err
        assert time.monotonic() - started < 3 * SECONDS, f"{words[1]} hangs"
        assert command.peak_mb < 1000 + MEGABYTES, f"{words[1]}: {command.peak_mb:.0f} MB"
    row.survived += 1
