"""Reader of QuPath's GeoJSON: one file a slide, or a folder of them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedstore.annotations.format import Format, Glance
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
from embedstore.files.tables import MALFORMED

Place = tuple[float, float]
Feature = Mapping[str, Any]
SUFFIXES = (".geojson", ".json")


def is_geojson(data: Any) -> bool:
    """Return whether parsed JSON is a FeatureCollection, a Feature, or a list of Features."""
    if isinstance(data, list):
        return all(isinstance(f, dict) and f.get("type") == "Feature" for f in data)
    return isinstance(data, dict) and data.get("type") in ("FeatureCollection", "Feature")


def read_geojson(path: Path) -> AnnotationFile:
    """Return QuPath's objects that have a class; the slide is named by the file without its ending.

    Points count one by one, polygons by their centroid, in level-0 pixels; lines and objects
    without a class are left out and counted.
    """
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    by_file = _read_files(path, files)
    slides, distinct, n_unclassed, n_shapeless = [], Distinct(), 0, 0
    for file, features in by_file.items():
        slide = file.stem  # a.svs.geojson is of a.svs, a.geojson of the slide a
        slides.append(SourceSlide(slide))
        for n, feature in enumerate(features, start=1):
            category, places = _category(feature), _places(feature, f"{file} feature {n}")
            if category is None:
                n_unclassed += 1
            elif places is None:
                n_shapeless += 1
            else:
                for a in _annotations(slide, feature, category, places):
                    distinct.add(a, file, f"feature {n}")
    notes: list[str] = []
    note_count(notes, n_unclassed, "objects without a class were")
    note_count(notes, n_shapeless, "objects that are neither points nor polygons were")
    annotations = distinct.values(notes, "objects")
    kept = keep_annotated(path, slides, annotations, notes)
    return AnnotationFile(path, "geojson", kept, annotations, notes=notes)


def centroid(ring: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Return the area centroid (x, y) of a closed ring and its area, in pixels; holes are no part.

    The shoelace sums run from the first vertex, since far from the origin they lose all digits. A
    ring without area, or one that crosses itself so that its centroid falls outside of its bounds,
    gives the mean of its vertices.
    """
    x0, y0 = float(ring[0][0]), float(ring[0][1])
    points = [(float(p[0]) - x0, float(p[1]) - y0) for p in ring]
    if len(points) > 1 and points[-1] == points[0]:
        points.pop()
    twice = x = y = 0.0
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        cross = ax * by - bx * ay
        twice, x, y = twice + cross, x + (ax + bx) * cross, y + (ay + by) * cross
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    extent = max(max(xs) - min(xs), max(ys) - min(ys))
    if abs(twice) > 1e-9 * extent**2:
        cx, cy = x / (3 * twice), y / (3 * twice)
        if min(xs) <= cx <= max(xs) and min(ys) <= cy <= max(ys):
            return x0 + cx, y0 + cy, abs(twice) / 2
    return x0 + sum(xs) / len(xs), y0 + sum(ys) / len(ys), 0.0


def _read_files(path: Path, files: Iterable[Path]) -> dict[Path, list[Feature]]:
    features, wrong = {}, []
    for file in files:
        try:
            features[file] = _features(json.loads(file.read_text(encoding="utf-8-sig")))
        except MALFORMED as e:
            wrong.append(f"{file.name} ({e})")
    if wrong:
        raise EmbedstoreError(
            f"{path}: not GeoJSON: {', '.join(wrong[:8])}; mend it or take it out of the folder, "
            "or name what this is with --format"
        )
    return features


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


def _places(feature: Feature, where: str) -> list[Place] | None:
    """Return the centres that a feature's geometry stands for, None where it stands for none."""
    geometry = feature.get("geometry") or {}
    kind: Any = geometry.get("type")
    coordinates: Any = geometry.get("coordinates")
    if kind not in ("Point", "MultiPoint", "Polygon", "MultiPolygon"):
        return None
    if kind.startswith("Multi") and coordinates == []:
        return None
    try:
        if kind in ("Point", "MultiPoint"):
            points = [coordinates] if kind == "Point" else coordinates
            return [(float(p[0]), float(p[1])) for p in points]
        polygons = [coordinates] if kind == "Polygon" else coordinates
        return [_common_centroid([rings[0] for rings in polygons])]
    except MALFORMED as e:
        raise EmbedstoreError(f"{where}: its {kind} has no usable coordinates ({e})") from e


def _common_centroid(rings: Iterable[Sequence[Sequence[float]]]) -> Place:
    """Return the centroid of several rings by area, the mean of theirs where none has any."""
    parts = [centroid(ring) for ring in rings]
    total = sum(p[2] for p in parts)
    weights = [p[2] / total if total else 1 / len(parts) for p in parts]
    x, y = (sum(w * p[k] for w, p in zip(weights, parts, strict=True)) for k in (0, 1))
    return x, y


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
    several = feature["geometry"]["type"] == "MultiPoint"
    annotations = []
    for n, (x, y) in enumerate(places):
        source_id = content_id(slide, x, y) if own_name is None else own_name + f"-{n}" * several
        annotations.append(SourceAnnotation(slide, source_id, x, y, category, attributes))
    return annotations


def _claim(file: Glance) -> list[str] | None:
    if file.path.is_dir():
        return [] if any(p.suffix.lower() in SUFFIXES for p in file.path.iterdir()) else None
    return [] if file.is_json and is_geojson(file.json) else None


FORMATS = {"geojson": Format(read_geojson, _claim)}
