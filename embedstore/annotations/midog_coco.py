"""Readers of JSON with images, categories and annotations: MIDOG's and true COCO.

Both have COCO's keys. MIDOG's boxes, and those of CCMCT's exporter, are [x1, y1, x2, y2]; COCO's
are [x, y, width, height]. Taking one for the other puts every centre in a wrong place, so each
reader refuses boxes that contradict it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.annotations.format import Format, Glance, load_json
from embedstore.annotations.outlines import joined
from embedstore.annotations.source import (
    AnnotationFile,
    SourceAnnotation,
    SourceSlide,
    first_key,
    keep_annotated,
    note_count,
)
from embedstore.errors import EmbedstoreError
from embedstore.files.tables import file_name

Row = Mapping[str, Any]
COCO_ONLY = ("iscrowd", "area", "segmentation")
"""Keys of an annotation that COCO's files have and MIDOG's have not."""


@dataclass(frozen=True)
class _Content:
    """The parts of a file: slides by image id, class names by category id, usable annotations."""

    slides: dict[Any, SourceSlide]
    classes: dict[Any, str]
    rows: list[Row]
    notes: list[str]


def read_midog(path: Path) -> AnnotationFile:
    """Return MIDOG's JSON: COCO's keys, but bbox is [x1, y1, x2, y2] in level-0 pixels.

    Source: MIDOG++ (Aubreville et al. 2023). Images without annotations are unlabelled, not free
    of mitoses, so they are left out and counted. CCMCT's exporter (Bertram et al. 2019) writes one
    entry for each of an annotation's coordinates: those of one id are one annotation, whose centre
    is their mean.
    """
    content = _content(path, lambda x1, y1, x2, y2: [x1, y1, x2, y2])
    by_id: dict[Any, list[Row]] = {}
    for a in content.rows:
        x1, y1, x2, y2 = a["bbox"]
        if x2 < x1 or y2 < y1:
            raise EmbedstoreError(
                f"{path}: box {a['bbox']} of annotation {a['id']} ends before it starts; MIDOG's "
                "boxes are [x1, y1, x2, y2], not COCO's [x, y, width, height]: those are read "
                "with --format coco"
            )
        by_id.setdefault(a["id"], []).append(a)
    annotations = []
    for same in by_id.values():
        x = [(a["bbox"][0] + a["bbox"][2]) / 2 for a in same]
        y = [(a["bbox"][1] + a["bbox"][3]) / 2 for a in same]
        annotations.append(_annotation(content, same[0], sum(x) / len(x), sum(y) / len(y)))
    if several := sum(len(same) > 1 for same in by_id.values()):
        content.notes.append(
            f"{several} annotations have several entries of one id: their centre is the mean"
        )
    return _annotation_file(path, "midog", content, annotations)


def read_coco(path: Path) -> AnnotationFile:
    """Return COCO's JSON: bbox is [x, y, width, height] in level-0 pixels."""
    content = _content(path, lambda x1, y1, x2, y2: [x1, y1, x2 - x1, y2 - y1])
    for a in content.rows:
        _, _, width, height = a["bbox"]
        if width < 0 or height < 0:
            raise EmbedstoreError(
                f"{path}: box {a['bbox']} of annotation {a['id']} has a negative size; COCO's "
                "boxes are [x, y, width, height], MIDOG's [x1, y1, x2, y2] are read with "
                "--format midog"
            )
    n_known, n_beyond = _run_beyond(content.rows, content.slides)
    if n_beyond * 2 > n_known:
        raise EmbedstoreError(
            f"{path}: {n_beyond} of {n_known} boxes run far past their images if read as COCO's "
            "[x, y, width, height]; [x1, y1, x2, y2] are read with --format midog"
        )
    annotations = [
        _annotation(content, a, a["bbox"][0] + a["bbox"][2] / 2, a["bbox"][1] + a["bbox"][3] / 2)
        for a in content.rows
    ]
    return _annotation_file(path, "coco", content, annotations)


def detect_box_form(data: Any) -> tuple[str, list[str]]:
    """Return which of midog and coco the boxes of a file are, and a note where nothing decides.

    Boxes that end before they start cannot be [x1, y1, x2, y2], boxes that run far past their
    image cannot be [x, y, width, height]; the majority decides, and the reader refuses the rest.
    """
    rows = [a for a in data["annotations"] if a.get("bbox")]
    if data["annotations"] and not rows:
        return "coco", []
    weighed = Counter(form for a in rows for form in _forms_that_fit(a))
    if weighed["coco"] != weighed["midog"]:
        (format, n), *others = weighed.most_common()
        against = f", {others[0][1]} against" if others else ""
        form = "[x, y, width, height]" if format == "coco" else "[x1, y1, x2, y2]"
        return format, [f"boxes are {form}: so say area and outline of {n} of them{against}"]
    if n_backward := sum(_ends_before_it_starts(a["bbox"]) for a in rows):
        return ("coco" if n_backward * 2 > len(rows) else "midog"), []
    n_known, n_beyond = _run_beyond(rows, _slides(data["images"]))
    if n_beyond * 2 > n_known or not rows:
        return "midog", []
    format, form, other = "midog", "[x1, y1, x2, y2]", "coco"
    if all(any(k in a for k in COCO_ONLY) for a in rows):
        format, form, other = "coco", "[x, y, width, height]", "midog"
    return format, [f"no box says which form it has: read as {form} (else --format {other})"]


def _forms_that_fit(row: Row) -> list[str]:
    """Return which reading of a row's box its outline or else its area agrees with, if just one.

    The outline's own bounds decide; without one, an area that is just the box's.
    """
    a, b, c, d = (float(v) for v in row["bbox"])
    if outline := _outline(row.get("segmentation")):
        xs, ys = outline[0::2], outline[1::2]
        bounds, slack = (min(xs), min(ys), max(xs), max(ys)), 2.0
        readings = {"coco": (a, b, a + c, b + d), "midog": (a, b, c, d)}
        fit = [
            form
            for form, box in readings.items()
            if all(abs(v - w) <= slack for v, w in zip(box, bounds, strict=True))
        ]
    elif isinstance(area := row.get("area"), int | float) and area > 0:
        sizes = {"coco": c * d, "midog": (c - a) * (d - b)}
        fit = [form for form, size in sizes.items() if abs(size - area) <= 0.01 * area]
    else:
        fit = []
    return fit if len(fit) == 1 else []


def _outline(segmentation: Any) -> list[float]:
    """Return the coordinates x, y, x, y, ... of COCO's polygons; none of masks or nothing."""
    values = [float(v) for part in _parts(segmentation) for v in part]
    return values if len(values) % 2 == 0 else []


def _parts(segmentation: Any) -> list[Any]:
    if not isinstance(segmentation, list):
        return []
    return segmentation if all(isinstance(p, list) for p in segmentation) else [segmentation]


def _rings(segmentation: Any) -> list[list[tuple[float, float]]]:
    """Return the vertices of each of COCO's polygons that has any."""
    rings = [
        [(float(x), float(y)) for x, y in zip(part[0::2], part[1::2], strict=True)]
        for part in _parts(segmentation)
        if len(part) % 2 == 0
    ]
    return [r for r in rings if r and all(math.isfinite(v) for place in r for v in place)]


def _ends_before_it_starts(box: Sequence[float]) -> bool:
    return box[2] < box[0] or box[3] < box[1]


def _run_beyond(rows: Iterable[Row], slides: Mapping[Any, SourceSlide]) -> tuple[int, int]:
    """Return on how many rows the image's size is known, and how many boxes run far past it.

    Far: by more than a tenth of the image, if read as [x, y, width, height].
    """
    n_known = n_beyond = 0
    for a in rows:
        slide = slides.get(a["image_id"])
        if slide is not None and slide.width and slide.height:
            x, y, width, height = a["bbox"]
            n_known += 1
            n_beyond += x + width > 1.1 * slide.width or y + height > 1.1 * slide.height
    return n_known, n_beyond


def _slides(images: Iterable[Row]) -> dict[Any, SourceSlide]:
    slides = {}
    for image in images:
        scalars = {k: str(v) for k, v in image.items() if isinstance(v, str | int | float)}
        width, height = (int(image.get(k) or 0) or None for k in ("width", "height"))
        slides[image["id"]] = SourceSlide(file_name(image["file_name"]), width, height, scalars)
    return slides


Box = Callable[[float, float, float, float], list[float]]


def _with_box(path: Path, row: Row, box: Box) -> Row:
    """Return a row with its box, made of its outline's bounds where it has none of its own."""
    if row.get("bbox"):
        return row
    if not (outline := _outline(row.get("segmentation"))):
        raise EmbedstoreError(
            f"{path}: annotation {row.get('id')} has no bbox and no outline that gives one (masks, "
            "as run lengths, do not); export it with bbox, or with segmentation as polygons"
        )
    xs, ys = outline[0::2], outline[1::2]
    return {**row, "bbox": box(min(xs), min(ys), max(xs), max(ys))}


def _content(path: Path, box: Box) -> _Content:
    """Return the parts of a file; box makes of an outline's bounds a bbox of the reader's form."""
    data = load_json(path)
    if lacking := [p for p in PARTS if not isinstance(data.get(p), list)]:
        raise EmbedstoreError(f"{path} has no list of {', '.join(lacking)}, as COCO's files have")
    slides = _slides(data["images"])
    classes = {c["id"]: str(c["name"]) for c in data["categories"]}
    rows, first, unclassed = [], dict[Any, tuple[Any, Any]](), set[Any]()
    for a in data["annotations"]:
        if a["image_id"] not in slides:
            raise EmbedstoreError(
                f"{path}: annotation {a['id']} is on image {a['image_id']}, which the file does "
                "not list under images"
            )
        ids = (a["image_id"], a["category_id"])
        if first.setdefault(a["id"], ids) != ids:
            raise EmbedstoreError(
                f"{path}: annotation id {a['id']} comes twice, with image and category "
                f"{first[a['id']]} and {ids}; give each annotation an id of its own"
            )
        if a["category_id"] in classes:
            rows.append(_with_box(path, a, box))
        else:
            unclassed.add(a["id"])
    notes: list[str] = []
    if n_made := sum(not a.get("bbox") for a in data["annotations"]):
        notes.append(f"{n_made} annotations have no bbox: that of their outline is taken")
    if n_parts := sum(len(joined(_rings(a.get("segmentation")))) > 1 for a in rows):
        notes.append(
            f"{n_parts} annotations have outlines of several parts that do not touch: each is one "
            "object, at the middle of its box; give each part an annotation of its own if it is one"
        )
    note_count(notes, len(unclassed), "annotations without a class that the file lists were")
    return _Content(slides, classes, rows, notes)


def _annotation(content: _Content, a: Row, x_l0: float, y_l0: float) -> SourceAnnotation:
    slide = content.slides[a["image_id"]]
    votes = tuple(content.classes.get(v, str(v)) for v in a.get("labels") or ())
    category = content.classes[a["category_id"]]
    return SourceAnnotation(
        slide.slide, str(a["id"]), x_l0, y_l0, category, slide.attributes, votes
    )


def _annotation_file(
    path: Path, format: str, content: _Content, annotations: list[SourceAnnotation]
) -> AnnotationFile:
    slides = list(content.slides.values())
    kept = keep_annotated(path, slides, annotations, content.notes)
    domain_key = first_key(slides, "tumor_type", "domain")
    case_key = first_key(slides, "case", "slide")
    return AnnotationFile(path, format, kept, annotations, domain_key, case_key, content.notes)


PARTS = ("images", "categories", "annotations")
"""The lists that a file of either form has."""


def has_parts(data: Any) -> bool:
    """Return whether JSON has all the PARTS."""
    return isinstance(data, dict) and all(isinstance(data.get(p), list) for p in PARTS)


def _claimed_as(format: str) -> Callable[[Glance], list[str] | None]:
    def claim(file: Glance) -> list[str] | None:
        if not file.is_json or not has_parts(file.json):
            return None
        detected, notes = detect_box_form(file.json)
        return notes if detected == format else None

    return claim


FORMATS = {
    "midog": Format(read_midog, _claimed_as("midog"), is_last=True),
    "coco": Format(read_coco, _claimed_as("coco"), is_last=True),
}
