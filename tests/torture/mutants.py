"""Real small files of every format, and damage that becomes each."""

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from embedstore.add import AddOptions, add
from embedstore.annotations.columns import read_table
from embedstore.exchange import import_embeddings
from embedstore.exchange.loose import read_loose
from embedstore.exchange.pairing import cells_of, pair, vector_file
from embedstore.ingest import IngestOptions, ingest
from embedstore.models.checkpoints import find_weights
from embedstore.models.loading import build, load_embedder, resolve
from embedstore.store import Store
from probes.splits.files import import_manifest
from tests.making.commands import SHARED, call_command
from tests.making.slides import write_csv, write_slide

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
INPUTS = SHARED / "data/inputs"


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


@dataclass(frozen=True)
class Reader:
    """What reads a file: its name, a whole file as bytes, its ending, and the reading itself."""

    name: str
    raw: bytes
    suffix: str
    read: Callable[[Path], Any]


OF_INPUTS = (
    "01-multipolygon-cells/a.geojson",
    "11-coco-box-area/boxes.json",
    "20-json-of-other-tools/coco-without-bbox.json",
    "20-json-of-other-tools/dsa/a.json",
    "20-json-of-other-tools/hovernet/a.json",
    "20-json-of-other-tools/labelme.json",
    "21-odd-geometries/geometrycollection.geojson",
    "06-csv-corner-boxes/boxes.csv",
    "31-midog25-table/training.csv",
    "33-atnorm-table/labels.csv",
    "36-nucls-boxes/csv",
    "35-ocelot-folder/annotations",
    "39-hf-parquet/data",
    "40-image-arrays/fold1",
    "37-pcam-h5/camelyonpatch_level_2_split_test_x.h5",
)
"""Annotation files of others, real in their layout."""

SLIDES = (
    "inputs/02-slide-bounds/slides/a.scn",
    "inputs/14-padded-level/slides/levels.tiff",
    "inputs/23-plain-jpeg-exif/slides/field.jpg",
    "wsi/cmu-1-small-region.svs",
)

NAMES = (
    *(f"add {name.partition('/')[2]}" for name in OF_INPUTS),
    *("add cells.csv", "add sliderunner", "slide table"),
    *("evaluate parquet", "evaluate npz", "evaluate npy", "evaluate csv", "labels"),
    *("import h5", "import npz", "import parquet", "checkpoint", "safetensors", "manifest"),
    *("slide made.tiff", *(f"slide {Path(s).name}" for s in SLIDES)),
    *("patch png", "patch jpg", "patch tif", "store file"),
)
"""All readers, each with a file of its own."""


class Readers:
    """Makes the whole files in a folder, and the readers of them."""

    def __init__(self, work: Path) -> None:
        """Make what readers share: a store of sixty cells and two models, and its vectors."""
        self.work = work
        self.table = work / "cells.csv"
        rows = [
            f"s{k % 6}.tiff,{k},{k % 7},{('mitosis', 'imposter')[k % 2]},c{k % 6},{k}"
            for k in range(60)
        ]
        self.table.write_text("\n".join(["slide,x,y,label,case,id", *rows]) + "\n")
        self.uri = str(work / "store")
        add(self.uri, "d", self.table, AddOptions())
        self.ids = np.array([f"d/s{k % 6}.tiff/{k}" for k in range(60)])
        self.vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
        np.savez(work / "v.npz", annotation_id=self.ids, vector=self.vectors)
        self.whole = work / "whole"
        shutil.copytree(self.uri, self.whole)
        import_embeddings(Store.open(str(self.whole), write=True), "d", "m", work / "v.npz")

    def reader(self, name: str) -> Reader:
        """Return the reader of a name of NAMES."""
        kind, _, rest = name.partition(" ")
        if name in ("add cells.csv", "add sliderunner"):
            made = self.table if rest == "cells.csv" else sliderunner(self.work / "a.sqlite")
            return self._of(name, made, self._added)
        if kind == "add":
            place = next(INPUTS / p for p in OF_INPUTS if p.endswith(f"/{rest}"))
            files = (
                sorted(f for f in place.rglob("*") if f.is_file()) if place.is_dir() else [place]
            )
            return self._of(name, files[0], self._added)
        if kind == "import":
            return self._of(name, self._vector_file(rest), self._imported)
        if kind == "evaluate":
            return self._of(name, self._loose_file(rest), lambda path: self._paired(path, None))
        if kind == "labels":
            path = self._loose_file("npy")
            return self._of(name, self.table, lambda damaged: self._paired(path, damaged))
        if kind == "slide" and rest != "table":
            return self._of(name, self._slide(rest), self._embedded)
        if kind == "patch":
            path = self.work / f"whole.{rest}"
            pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            return self._of(name, path, self._patch)
        return getattr(self, "_" + name.replace(" ", "_"))(name)  # type: ignore[no-any-return]

    @staticmethod
    def _of(name: str, path: Path, read: Callable[[Path], Any]) -> Reader:
        return Reader(name, path.read_bytes(), path.suffix, read)

    def _added(self, path: Path) -> None:
        add(str(self.work / "none"), "x", path, AddOptions(dry_run=True))

    def _imported(self, path: Path) -> None:
        store = self.work / "copy"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(self.uri, store)
        import_embeddings(Store.open(str(store), write=True), "d", "m", path)

    def _vector_file(self, ending: str) -> Path:
        path = self.work / f"v.{ending}"
        if ending == "h5":
            return INPUTS / "15-h5-mixed-tiles/h5/a.h5"
        if ending == "parquet":
            columns = {"annotation_id": self.ids.tolist(), "vector": self.vectors.tolist()}
            pq.write_table(pa.table(columns), path)
        return path

    def _loose_file(self, ending: str) -> Path:
        path = self.work / f"loose.{ending}"
        names = [str(k) for k in range(60)]
        if ending == "parquet":
            pq.write_table(pa.table({"id": names, "x": self.vectors.tolist()}), path)
        elif ending == "npz":
            np.savez(path, id=np.array(names), x=self.vectors)
        elif ending == "npy":
            np.save(path, self.vectors)
        else:
            lines = (",".join(map(str, [n, *v])) for n, v in zip(names, self.vectors, strict=True))
            path.write_text("\n".join(["id,0,1,2,3", *lines]) + "\n")
        return path

    def _paired(self, vectors: Path, labels: Path | None) -> None:
        """Read vectors and labels as `probes evaluate` does, up to what it would store."""
        loose = read_loose(vectors)
        table = read_table(labels or self.table)
        paired = pair(loose, table, in_order=vectors.suffix == ".npy")
        cells_of(table, paired)
        vector_file(loose, paired, paired.ids)

    def _slide_table(self, name: str) -> Reader:
        path = self.work / "slides.csv"
        rows = [f"s{k}.tiff,0.25,scanner {k % 2},c{k}" for k in range(6)]
        path.write_text("\n".join(["slide,mpp,scanner,case", *rows]) + "\n")

        def read(damaged: Path) -> None:
            options = AddOptions(dry_run=True, slide_table=damaged)
            add(str(self.work / "none"), "x", self.table, options)

        return self._of(name, path, read)

    def _manifest(self, name: str) -> Reader:
        path = self.work / "m.csv"
        rows = (f"{i},{('train', 'test')[k % 2]}" for k, i in enumerate(self.ids))
        path.write_text("\n".join(["annotation_id,role", *rows]) + "\n")
        uri = self.uri
        return self._of(
            name, path, lambda damaged: import_manifest(Store.open(uri, write=True), "d", damaged)
        )

    def _checkpoint(self, name: str) -> Reader:
        path = self.work / "w.pth"
        torch.save(dict(build(resolve("timm:test_vit")).state_dict()), path)
        return self._of(name, path, _loaded)

    def _safetensors(self, name: str) -> Reader:
        from safetensors.torch import save_file

        path = self.work / "w.safetensors"
        state = build(resolve("timm:test_vit")).state_dict()
        save_file({k: v.contiguous() for k, v in state.items()}, path)
        return self._of(name, path, _loaded)

    def _slide(self, rest: str) -> Path:
        if rest == "made.tiff":
            pixels = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
            return write_slide(self.work / "made.tiff", pixels, tile=128)
        return next(SHARED / "data" / s for s in SLIDES if Path(s).name == rest)

    def _embedded(self, path: Path) -> None:
        """Register a slide with two cells, and cut and embed their patches."""
        folder = self.work / "ingested"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        rows = [
            {"slide": path.name, "x": 60 + 90 * k, "y": 80, "label": ("mitosis", "imposter")[k]}
            for k in range(2)
        ]
        table = write_csv(folder / "c.csv", rows)
        uri = str(folder / "s")
        add(uri, "d", table, AddOptions(slides=path.parent, mpp=0.25))
        self._ingested(uri)

    def _patch(self, path: Path) -> None:
        folder = self.work / "ingested"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        whole = path.with_name(f"other{path.suffix}")
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(whole)
        rows = [{"path": path.name, "label": "mitosis"}, {"path": whole.name, "label": "imposter"}]
        table = write_csv(folder / "c.csv", rows)
        uri = str(folder / "s")
        add(uri, "d", table, AddOptions(slides=path.parent))
        self._ingested(uri)

    def _ingested(self, uri: str) -> None:
        options = IngestOptions(
            weights={"timm:test_vit": "random"}, dtype="float32", patch_px=64, workers=1
        )
        ingest(Store.open(uri, write=True), "d", ["timm:test_vit"], options)

    def _store_file(self, name: str) -> Reader:
        """Any file of a store: each time another one, by what is in it."""
        files = sorted(p for p in self.whole.rglob("*") if p.is_file() and p.stat().st_size)
        whole = self.whole

        def read(damaged: Path) -> None:
            content = damaged.read_bytes()
            number, damage = content[0], content[1:]
            file = files[number % len(files)]
            store = whole.with_name("damaged")
            shutil.rmtree(store, ignore_errors=True)
            shutil.copytree(whole, store)
            target = store / file.relative_to(whole)
            original = bytearray(file.read_bytes())
            if not damage:
                target.unlink()
            else:  # bytes of the file turned by those of the damage, from both ends
                for k, value in enumerate(damage[:64]):
                    at = (k * 37) % len(original)
                    original[at if k % 2 else -1 - at] ^= value
                target.write_bytes(original)
            output = ("--output", str(self.work / "out.npz"))
            for words in (
                ("embedstore", "status"),
                ("embedstore", "sql", "select count(*), min(vector[1]) from embeddings"),
                ("embedstore", "doctor"),
                ("probes", "run", "d", "--fold", "0"),
                ("embedstore", "export", "d", "--model", "m", "--overwrite", *output),
            ):
                call_command(*words, "--store", store)

        return Reader(name, bytes(range(256)), "", read)


def _loaded(path: Path) -> None:
    name = "timm:test_vit"
    found = find_weights(name, str(path), "")
    load_embedder(name, resolve(name), found, dtype="float32", device=torch.device("cpu"))


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
