"""Reader of QuPath's GeoJSON: one file a slide, or a folder of them."""

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from embedstore.annotations.format import Format, Glance
from embedstore.annotations.outlines import Place, common_centroid, joined
from embedstore.annotations.slide_json import slide_of, tool_of
from embedstore.annotations.source import (
    AnnotationFile,
    Distinct,
    SourceAnnotation,
    SourceSlide,
    content_id,
    keep_annotated,
    note_count,
)
from embedstore.errors import EmbedstoreError
from embedstore.files.folders import is_system, note_unread
from embedstore.files.tables import MALFORMED

Feature = Mapping[str, Any]
SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")


def is_geojson(data: Any) -> bool:
    """Return whether parsed JSON is a FeatureCollection, a Feature, or a list of Features."""
    if isinstance(data, list):
        return all(isinstance(f, dict) and f.get("type") == "Feature" for f in data)
    return isinstance(data, dict) and data.get("type") in ("FeatureCollection", "Feature")


def read_geojson(path: Path) -> AnnotationFile:
    """Return QuPath's objects that have a class; the slide is named by the file without its ending.

    Points count one by one, polygons by their centroid, in level-0 pixels. A feature of several
    polygons is as many objects, but for parts that touch: those are one. Lines, shapes without a
    place and objects without a class are left out and counted.
    """
    files = _geojson_files(path) if path.is_dir() else [path]
    by_file = _read_files(path, files)
    slides, distinct, counts, first_empty = [], Distinct(), Counter[str](), ""
    for file, features in by_file.items():
        slide = slide_of(file)
        slides.append(SourceSlide(slide))
        for n, feature in enumerate(features, start=1):
            category = _category(feature)
            places = _places(feature.get("geometry"), counts if category else Counter())
            if category is None:
                counts["objects without a class were"] += 1
                continue
            if counts[_EMPTY] and not first_empty:
                first_empty = f" (the first: {file.name} feature {n})"
            for a in _annotations(slide, feature, category, places):
                distinct.add(a, file, f"feature {n}")
    notes: list[str] = []
    if counts[_SEVERAL]:
        touching = f"; {counts[_TOUCHING]} parts that touch another count with it" * bool(
            counts[_TOUCHING]
        )
        notes.append(
            f"{counts[_SEVERAL]} features of several outlines: each is an object{touching}"
        )
    for what in ("objects without a class were", _SHAPELESS):
        note_count(notes, counts[what], what)
    note_count(notes, counts[_EMPTY], f"{_EMPTY}{first_empty} were")
    if path.is_dir():
        note_unread(
            notes, path, files, f"annotations end in {', '.join(SUFFIXES)}, in no subfolder"
        )
    annotations = distinct.values(notes, "objects")
    kept = keep_annotated(path, slides, annotations, notes)
    return AnnotationFile(path, "geojson", kept, annotations, notes=notes)


def _read_files(path: Path, files: Iterable[Path]) -> dict[Path, list[Feature]]:
    features, wrong = {}, []
    for file in files:
        try:
            features[file] = _features(json.loads(_text(file)))
        except MALFORMED as e:
            wrong.append(f"{file.name} ({e})")
    if wrong:
        raise EmbedstoreError(
            f"{path}: not GeoJSON: {', '.join(wrong[:8])}; mend it or take it out of the folder, "
            "or name what this is with --format"
        )
    return features


def _geojson_files(folder: Path) -> list[Path]:
    """Return the files of a folder that end as annotations do; subfolders are not looked into."""
    files = (p for p in folder.iterdir() if p.is_file() and not is_system(p.name))
    return sorted(p for p in files if p.name.lower().endswith(SUFFIXES))


def _text(file: Path) -> str:
    raw = file.read_bytes()
    if raw.startswith(b"\x1f\x8b"):
        with gzip.open(file) as unpacked:
            raw = unpacked.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"it holds more than {MAX_BYTES / 1e9:g} GB when unpacked")
    return raw.decode("utf-8-sig")


MAX_BYTES = 4 * 10**9
"""A packed file that holds more is taken for damaged, or for worse."""


def _features(data: Any) -> list[Feature]:
    if not is_geojson(data):
        raise ValueError("no FeatureCollection, Feature or list of Features")
    features = data if isinstance(data, list) else data.get("features", [data])
    return [{**f, "properties": f.get("properties") or {}} for f in features]


def _category(feature: Feature) -> str | None:
    """Return the name of an object's class, in any of the forms QuPath has written."""
    classification = feature["properties"].get("classification")
    if isinstance(classification, dict):
        classification = classification.get("name") or classification.get("names")
    if isinstance(classification, list):
        classification = ": ".join(map(str, classification))
    return classification if isinstance(classification, str) and classification.strip() else None


_SEVERAL, _TOUCHING = "several", "touching"
_SHAPELESS = "objects that are neither points nor polygons were"
_EMPTY = "shapes without usable coordinates"


def _places(geometry: Any, counts: "Counter[str]") -> list[Place]:
    """Return the centres that a geometry stands for; what stands for none is counted."""
    outlines, points = list[list[Place]](), list[Place]()
    kinds = list(_shapes(geometry))
    if not kinds:
        counts[
            _EMPTY if isinstance(geometry, dict) and geometry.get("type") in _KNOWN else _SHAPELESS
        ] += 1
    for kind, coordinates in kinds:
        if kind not in ("Point", "Polygon"):
            counts[_SHAPELESS] += 1
            continue
        try:
            if kind == "Point":
                points.append(_finite([coordinates])[0])
            else:
                outlines.append(_finite(coordinates[0]))
        except MALFORMED:
            counts[_EMPTY] += 1
    together = joined(outlines)
    if len(outlines) > 1:
        counts[_SEVERAL] += 1
        counts[_TOUCHING] += len(outlines) - len(together)
    return points + [common_centroid(rings) for rings in together]


_KNOWN = ("Point", "MultiPoint", "Polygon", "MultiPolygon", "GeometryCollection")


def _shapes(geometry: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the single shapes of a geometry, (type, coordinates), those of collections too."""
    waiting = [geometry]
    while waiting:
        shape = waiting.pop(0)
        if not isinstance(shape, dict):
            continue
        kind, coordinates = shape.get("type"), shape.get("coordinates")
        if kind == "GeometryCollection":
            parts = shape.get("geometries")
            waiting += parts if isinstance(parts, list) else []
        elif kind in ("MultiPoint", "MultiPolygon"):
            parts = coordinates if isinstance(coordinates, list) else []
            yield from ((kind.removeprefix("Multi"), part) for part in parts)
        else:
            yield kind, coordinates


def _finite(ring: Any) -> list[Place]:
    """Return a ring's vertices; ValueError where there are none, or one that is no place."""
    vertices = [(float(p[0]), float(p[1])) for p in ring]
    if not vertices or not all(math.isfinite(v) for place in vertices for v in place):
        raise ValueError("no place")
    return vertices


def _annotations(
    slide: str, feature: Feature, category: str, places: list[Place]
) -> list[SourceAnnotation]:
    # Until its version 0.3 QuPath wrote the kind of object ("PathDetectionObject") as the id.
    name = feature.get("id")
    own_name = (
        None if name is None or re.fullmatch(r"(Path|TMA)\w*Object", str(name)) else str(name)
    )
    attributes = {
        k: str(v) for k, v in feature["properties"].items() if isinstance(v, str | int | float)
    }
    kind = (feature.get("geometry") or {}).get("type")
    several = len(places) > 1 or kind == "MultiPoint"
    annotations = []
    for n, (x, y) in enumerate(places):
        source_id = content_id(slide, x, y) if own_name is None else own_name + f"-{n}" * several
        annotations.append(SourceAnnotation(slide, source_id, x, y, category, attributes))
    return annotations


def _claim(file: Glance) -> list[str] | None:
    if file.path.is_dir():
        is_others = tool_of(file.first_json) is not None
        return [] if _geojson_files(file.path) and not is_others else None
    if file.head.startswith(b"\x1f\x8b"):
        return [] if file.path.name.lower().endswith(SUFFIXES) else None
    return [] if file.is_json and is_geojson(file.json) else None


FORMATS = {"geojson": Format(read_geojson, _claim)}
