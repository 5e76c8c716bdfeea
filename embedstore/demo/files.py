"""The files of the demonstration dataset: tiled pyramids, MIDOG's JSON, a SlideRunner database."""

import io
import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.demo.domains import StainDomain
from embedstore.errors import EmbedstoreError

try:
    import tifffile
except ModuleNotFoundError as e:
    raise EmbedstoreError(
        "`embedstore demo` needs the package tifffile: pip install 'mitosis-embedstore[demo]'"
    ) from e

FIGURE, LOOK_ALIKE = 1, 2  # category ids, as in MIDOG
_TILE_PX = 256
_SUBSAMPLING_TAG = 530  # YCbCrSubSampling
_DOWNSAMPLES = (1, 2, 4)
_SCHEMA = """
CREATE TABLE Slides (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, filename TEXT, width INTEGER,
  height INTEGER, directory TEXT, uuid TEXT, exactImageID TEXT, EXACTUSER INTEGER DEFAULT 0);
CREATE TABLE Annotations (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, slide INTEGER, guid TEXT,
  lastModified REAL DEFAULT 1616148830.5508225, deleted INTEGER DEFAULT 0, type INTEGER,
  agreedClass INTEGER, description TEXT, clickable INTEGER DEFAULT 1);
CREATE TABLE Annotations_coordinates (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE,
  coordinateX INTEGER, coordinateY INTEGER, coordinateZ INTEGER DEFAULT 0, slide INTEGER,
  annoId INTEGER, orderIdx INTEGER);
CREATE TABLE Annotations_label (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, person INTEGER,
  class INTEGER, exact_id INTEGER, annoId INTEGER);
CREATE TABLE Classes (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, name TEXT, color TEXT);
CREATE TABLE Persons (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, name TEXT,
  isExactUser INTEGER DEFAULT 0);
CREATE TABLE Log (uid INTEGER PRIMARY KEY AUTOINCREMENT, dateTime FLOAT, labelId INTEGER);
"""


@dataclass(frozen=True)
class DemoPoint:
    """One annotation: centre in level-0 pixels, category id, and the three experts' votes."""

    x_l0: float
    y_l0: float
    category: int
    votes: tuple[int, int, int]
    looks_mitotic: bool


@dataclass(frozen=True)
class SlidePlan:
    """What one slide will hold; size_px is (width, height) at level 0."""

    image_id: int
    file_name: str
    case: str
    domain: StainDomain
    seed: tuple[int, ...]
    size_px: tuple[int, int]
    points: tuple[DemoPoint, ...]


def write_pyramid(path: Path, picture: NDArray[np.uint8], mpp: float) -> None:
    """Write picture (h, w, 3) uint8 RGB as a tiled JPEG pyramid that OpenSlide opens.

    mpp is in um per level-0 pixel; levels are downsampled by 1, 2 and 4.
    """
    level0 = Image.fromarray(picture)
    with tifffile.TiffWriter(path) as tiff:
        for downsample in _DOWNSAMPLES:
            image = level0 if downsample == 1 else level0.reduce(downsample)
            tiff.write(
                _jpeg_tiles(np.asarray(image)),
                shape=(image.height, image.width, 3),
                dtype=np.uint8,
                tile=(_TILE_PX, _TILE_PX),
                photometric="rgb",
                compression="zlib",
                subfiletype=0 if downsample == 1 else 1,
                resolution=(1e4 / (mpp * downsample),) * 2,
                resolutionunit="CENTIMETER",
                description="generated demonstration image, not real tissue",
                software="embedstore demo",
                metadata=None,
                extratags=[(_SUBSAMPLING_TAG, "H", 2, (1, 1), True)],
            )
    # tifffile refuses to declare JPEG where imagecodecs is missing, even for tiles encoded already;
    # so they are written under a codec it always has, and the true one is put in afterwards
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for page in tiff.pages:
            tags = page.aspage().tags
            tags["Compression"].overwrite(tifffile.COMPRESSION.JPEG)
            tags["PhotometricInterpretation"].overwrite(tifffile.PHOTOMETRIC.YCBCR)


def _jpeg_tiles(pixels: NDArray[np.uint8]) -> Iterator[bytes]:
    """Yield JPEG tiles row by row; Pillow encodes, so that tifffile needs no codec library."""
    h, w, _ = pixels.shape
    padded = np.pad(pixels, ((0, -h % _TILE_PX), (0, -w % _TILE_PX), (0, 0)), mode="edge")
    for y in range(0, h, _TILE_PX):
        for x in range(0, w, _TILE_PX):
            buffer = io.BytesIO()
            tile = Image.fromarray(padded[y : y + _TILE_PX, x : x + _TILE_PX])
            tile.save(buffer, "JPEG", quality=85, subsampling=0)
            yield buffer.getvalue()


# --- annotations ---------------------------------------------------------------------------------


def write_midog(plans: list[SlidePlan], info: dict[str, Any], path: Path) -> None:
    """Write MIDOG's JSON: 50 x 50 px boxes [x1, y1, x2, y2] and three votes an annotation."""
    images = [
        {
            "id": p.image_id,
            "file_name": p.file_name,
            "width": p.size_px[0],
            "height": p.size_px[1],
            "tumor_type": p.domain.name,
            "slide": p.case,
        }
        for p in plans
    ]
    points = [(plan.image_id, point) for plan in plans for point in plan.points]
    annotations = [
        {
            "id": number,
            "image_id": image_id,
            "category_id": p.category,
            "bbox": [p.x_l0 - 25, p.y_l0 - 25, p.x_l0 + 25, p.y_l0 + 25],
            "labels": list(p.votes),
        }
        for number, (image_id, p) in enumerate(points, start=1)
    ]
    categories = [
        {"id": FIGURE, "name": "mitotic figure"},
        {"id": LOOK_ALIKE, "name": "not mitotic figure"},
    ]
    content = {
        "info": info,
        "images": images,
        "categories": categories,
        "annotations": annotations,
    }
    path.write_text(json.dumps(content, indent=1), encoding="utf-8", newline="\n")


def write_sliderunner(plans: list[SlidePlan], path: Path) -> None:
    """Write the tables of SlideRunner, without its triggers: they call functions of its own."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(_SCHEMA)
        names = [("mitotic figure", "#fc7ca7"), ("not mitotic figure", "#c5b6b2")]
        db.executemany("INSERT INTO Classes (name, color) VALUES (?, ?)", names)
        experts = [(f"expert {n}",) for n in (1, 2, 3)]
        db.executemany("INSERT INTO Persons (name) VALUES (?)", experts)
        for plan in plans:
            row = (plan.image_id, plan.file_name, *plan.size_px, plan.domain.name)
            db.execute(
                "INSERT INTO Slides (uid, filename, width, height, directory) VALUES (?,?,?,?,?)",
                row,
            )
            for number, point in enumerate(plan.points):
                _insert(db, plan, point, box=number % 4 == 3, deleted=False)
                if number == 2:  # an annotation someone moved: its old place stays, deleted
                    _insert(db, plan, point, box=False, deleted=True)


def _insert(
    db: sqlite3.Connection, plan: SlidePlan, point: DemoPoint, *, box: bool, deleted: bool
) -> None:
    shift = 9.0 if deleted else 0.0
    x, y = point.x_l0 + shift, point.y_l0 + shift
    corners = [(x - 22, y - 18), (x + 22, y + 18)] if box else [(x, y)]
    guid = uuid.uuid5(uuid.NAMESPACE_URL, f"demo:{plan.seed}:{x}:{y}:{deleted}")
    cursor = db.execute(
        "INSERT INTO Annotations (slide, guid, deleted, type, agreedClass) VALUES (?,?,?,?,?)",
        (plan.image_id, str(guid), int(deleted), 2 if box else 1, point.category),
    )
    uid = cursor.lastrowid
    db.executemany(
        "INSERT INTO Annotations_coordinates (coordinateX, coordinateY, slide, annoId, orderIdx)"
        " VALUES (?,?,?,?,?)",
        [(cx, cy, plan.image_id, uid, order) for order, (cx, cy) in enumerate(corners, start=1)],
    )
    db.executemany(
        "INSERT INTO Annotations_label (person, class, annoId) VALUES (?,?,?)",
        [(person, vote, uid) for person, vote in enumerate(point.votes, start=1)],
    )
