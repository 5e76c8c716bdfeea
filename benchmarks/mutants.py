"""Files that are damaged in every way: each reader reads them or says in words what is wrong.

Runs alone: takes small real files of every format, changes them by chance (bytes turned, cut out,
doubled; parts of JSON and tables swapped for odd values), and gives each to the command that reads
it. Anything but a result or an EmbedstoreError is a traceback, printed with the seed that makes it
again. Prints counts by reader; --n how many for each file; --seed; --json FILE.
"""

import argparse
import json
import random
import shutil
import sqlite3
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.exchange import import_embeddings
from embedstore.models.checkpoints import find_weights
from embedstore.models.loading import load_embedder, resolve
from embedstore.store import Store
from probes.splits.files import import_manifest

ODD: tuple[Any, ...] = (
    None,
    [],
    {},
    "",
    "x",
    -1,
    0,
    1e308,
    "1e999",
    True,
    [[[]]],
    {"a": {"b": []}},
)
ROOT = Path(__file__).resolve().parents[1]
INPUTS = ROOT.parent / "shared/data/inputs"


def turned(raw: bytes, rng: random.Random) -> bytes:
    """Return bytes with some of them turned, cut out or doubled."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(max(len(data), 1))
        kind = rng.randrange(4)
        if kind == 0 and data:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randint(1, 40)]
        else:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
    return bytes(data[: rng.randrange(len(data) + 1)]) if rng.random() < 0.1 else bytes(data)


def swapped(node: Any, rng: random.Random) -> Any:
    """Return JSON with one part of it in place of an odd value, lost, or deeply nested."""
    if isinstance(node, dict | list) and node and rng.random() < 0.85:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = rng.choice(keys)
        copy = dict(node) if isinstance(node, dict) else list(node)
        if rng.random() < 0.1:
            del copy[key]
        else:
            copy[key] = swapped(node[key], rng)
        return copy
    if rng.random() < 0.05:
        nested: Any = []
        for _ in range(900):
            nested = [nested]
        return nested
    return rng.choice(ODD)


def cells(text: str, rng: random.Random) -> str:
    """Return a table with some of its fields in place of odd ones."""
    lines = [line.split(",") for line in text.splitlines()]
    for _ in range(rng.randint(1, 4)):
        line = rng.choice(lines)
        line[rng.randrange(len(line))] = rng.choice(
            ["", "nan", "inf", "-1", "1e400", '"', "a,b", "\x00", "\ufeff", "é" * 50, "=1+1", "0x1"]
        )
    return "\n".join(",".join(line) for line in lines)


def mutant(raw: bytes, suffix: str, rng: random.Random) -> bytes:
    """Return a file's bytes, damaged as becomes its format, or as bytes."""
    try:
        if suffix in (".json", ".geojson") and rng.random() < 0.7:
            return json.dumps(swapped(json.loads(raw), rng)).encode()
        if suffix == ".csv" and rng.random() < 0.6:
            return cells(raw.decode(), rng).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        pass
    return turned(raw, rng)


def sources(work: Path) -> list[tuple[str, Path, Callable[[Path], Any]]]:
    """Return (reader, small whole file, what reads it), for every format that is read."""
    uri = str(work / "store")
    table = work / "cells.csv"
    rows = [
        f"s{k % 6}.tiff,{k},{k % 7},{('mitosis', 'imposter')[k % 2]},c{k % 6},{k}"
        for k in range(60)
    ]
    table.write_text("\n".join(["slide,x,y,label,case,id", *rows]) + "\n")
    add(uri, "d", table, AddOptions())
    ids = np.array([f"d/s{k % 6}.tiff/{k}" for k in range(60)])
    vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.savez(work / "v.npz", annotation_id=ids, vector=vectors)
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    columns = {"annotation_id": ids.tolist(), "vector": vectors.tolist()}
    pq.write_table(pa.table(columns), work / "v.parquet")
    torch.save(resolve_state(), work / "w.pth")
    manifest = [
        "annotation_id,role",
        *(f"{i},{('train', 'test')[k % 2]}" for k, i in enumerate(ids)),
    ]
    (work / "m.csv").write_text("\n".join(manifest) + "\n")

    def added(path: Path) -> None:
        add(str(work / "none"), "x", path, AddOptions(dry_run=True))

    def with_slides(path: Path) -> None:
        add(str(work / "none"), "x", table, AddOptions(dry_run=True, slide_table=path))

    def imported(path: Path) -> None:
        store = str(work / "copy")
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(uri, store)
        import_embeddings(Store.open(store, write=True), "d", "m", path)

    def loaded(path: Path) -> None:
        name = "timm:test_vit"
        entry = resolve(name)
        found = find_weights(name, str(path), "")
        load_embedder(name, entry, found, dtype="float32", device=torch.device("cpu"))

    def split(path: Path) -> None:
        import_manifest(Store.open(uri, write=True), "d", path)

    slide_table = work / "slides.csv"
    rows = [f"s{k}.tiff,0.25,scanner {k % 2},c{k}" for k in range(6)]
    slide_table.write_text("\n".join(["slide,mpp,scanner,case", *rows]) + "\n")
    of_inputs = [
        "01-multipolygon-cells/a.geojson",
        "11-coco-box-area/boxes.json",
        "20-json-of-other-tools/coco-without-bbox.json",
        "20-json-of-other-tools/dsa/a.json",
        "20-json-of-other-tools/hovernet/a.json",
        "20-json-of-other-tools/labelme.json",
        "06-csv-corner-boxes/boxes.csv",
        "31-midog25-table/training.csv",
        "39-hf-parquet/data",
        "40-image-arrays/fold1",
        "37-pcam-h5/camelyonpatch_level_2_split_test_x.h5",
    ]
    found = [("add " + p.partition("/")[2], INPUTS / p, added) for p in of_inputs]
    found = [
        (name, next(f for f in sorted(p.rglob("*")) if f.is_file()) if p.is_dir() else p, read)
        for name, p, read in found
        if p.exists()
    ]
    return [
        *found,
        ("add cells.csv", table, added),
        ("add sliderunner", sliderunner(work / "a.sqlite"), added),
        ("slide table", slide_table, with_slides),
        ("import h5", INPUTS / "15-h5-mixed-tiles/h5/a.h5", imported),
        ("import npz", work / "v.npz", imported),
        ("import parquet", work / "v.parquet", imported),
        ("checkpoint", work / "w.pth", loaded),
        ("manifest", work / "m.csv", split),
    ]


def sliderunner(path: Path) -> Path:
    """Write a small database as SlideRunner does: points of two classes on two slides."""
    with sqlite3.connect(path) as db:
        db.executescript(
            "create table Slides (uid integer primary key, filename text, width integer, "
            "height integer); create table Annotations (uid integer primary key, slide integer, "
            "type integer, agreedClass integer, guid text, deleted integer default 0); "
            "create table Annotations_coordinates (annoId integer, slide integer, coordinateX "
            "integer, coordinateY integer, orderIdx integer); create table Classes (uid integer "
            "primary key, name text); insert into Classes values (2, 'Mitose'), (7, 'Nonmitosis');"
        )
        db.executemany("insert into Slides values (?, ?, 900, 700)", [(1, "a.svs"), (2, "b.svs")])
        for n in range(1, 25):
            row = (n, 1 + n % 2, (2, 7)[n % 2], f"guid-{n}")
            db.execute("insert into Annotations values (?, ?, 1, ?, ?, 0)", row)
            at = (n, 1 + n % 2, 30 * n, 20 * n)
            db.execute("insert into Annotations_coordinates values (?, ?, ?, ?, 0)", at)
    db.close()
    return path


def resolve_state() -> dict[str, Any]:
    """Return the state of a small network."""
    from embedstore.models.loading import build

    return dict(build(resolve("timm:test_vit")).state_dict())


def try_all(n: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Return counts by reader (read, refused, traceback) of n mutants each, and the tracebacks."""
    counts: dict[str, Counter[str]] = {}
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for reader, path, read in sources(Path(folder)):
            raw = path.read_bytes()
            of_reader = counts.setdefault(reader, Counter())
            for k in range(n):
                rng = random.Random(f"{seed} {reader} {k}")
                file = Path(folder) / f"mutant{path.suffix}"
                file.write_bytes(mutant(raw, path.suffix, rng))
                try:
                    read(file)
                    of_reader["read"] += 1
                except EmbedstoreError:
                    of_reader["refused"] += 1
                except Exception:  # noqa: BLE001  (what is sought)
                    of_reader["traceback"] += 1
                    faults.append(f"{reader}, seed {seed}, {k}:\n{traceback.format_exc()}")
    return counts, faults


def main() -> None:
    """Try mutants of every format and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    counts, faults = try_all(arguments.n, arguments.seed)
    for reader, of_reader in counts.items():
        print(f"{reader:42} {dict(of_reader)}")
    total = sum(sum(c.values()) for c in counts.values())
    print(f"{total} mutants, {len(faults)} tracebacks")
    for fault in faults[:20]:
        print(fault)
    if arguments.json:
        arguments.json.write_text(json.dumps({"mutants": total, "tracebacks": len(faults)}))


if __name__ == "__main__":
    main()
