"""Cells as GeoJSON for QuPath: one file a slide, which `add` reads again.

QuPath counts from the corner of the slide's scanned area where it has one; so do these files.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.files.output import write_whole
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows, literal

ENDING = ".geojson"


@dataclass(frozen=True)
class Cell:
    """An annotation to be drawn, by its id in the store; name: what QuPath shows beside it.

    measurements are numbers that QuPath lists with it.
    """

    annotation_id: str
    name: str
    measurements: Mapping[str, float] = field(default_factory=dict)


def write_cells(store: Store, cells: Sequence[Cell], output: Path) -> list[Path]:
    """Write cells as FOLDER/SLIDE.geojson; return the files written, in order.

    Of several datasets each has a folder of its own. A point is at the cell's centre, its class is
    the label that the store has. Pre-cropped patches have no place on a slide and are left out;
    EmbedstoreError where that leaves none of them.
    """
    if output.suffix:
        raise UsageError(f"{output}: name a folder, which gets one GeoJSON file a slide")
    places = _places(store, [c.annotation_id for c in cells])
    slides: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        of = places.get(cell.annotation_id)
        if of is not None:
            slides.setdefault((of["dataset"], of["slide"]), []).append(_feature(cell, of))
    if cells and not slides:
        raise EmbedstoreError("pre-cropped patches have no place on a slide, so QuPath has none")
    several = len({dataset for dataset, _ in slides}) > 1
    written = []
    for (dataset, slide), features in slides.items():
        folder = output / dataset if several else output
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{slide}{ENDING}"  # the slide's whole name: `add` knows it by that
        whole = {"type": "FeatureCollection", "features": features}
        content = json.dumps(whole, indent=1, ensure_ascii=False).encode()
        write_whole(path, functools.partial(_put, content))
        written.append(path)
    return written


def _put(content: bytes, sink: BinaryIO) -> int:
    return sink.write(content)


def _places(store: Store, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return where cells lie in QuPath's frame, level-0 pixels, by id; those on slides alone."""
    if not ids:
        return {}
    rows = fetch_rows(
        connect(store),
        "select annotation_id, a.dataset, a.slide, label, source_id, "
        "x_l0 - coalesce(s.bounds[1], 0) as x, y_l0 - coalesce(s.bounds[2], 0) as y "
        "from annotations a join slides s using (dataset, slide) "
        "where a.kind is distinct from 'patch' and x_l0 is not null and annotation_id in "
        f"({', '.join(map(literal, ids))})",
    )
    return {r["annotation_id"]: r for r in rows}


def _feature(cell: Cell, of: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": of["source_id"],
        "geometry": {"type": "Point", "coordinates": [of["x"], of["y"]]},
        "properties": {
            "objectType": "annotation",
            "name": cell.name,
            "classification": {"name": of["label"]},
            "measurements": dict(cell.measurements),
        },
    }
