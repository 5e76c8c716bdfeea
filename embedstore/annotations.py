"""Readers: one function per annotation file format, all returning an `AnnotationFile`.

A new format is one function and one row in `READERS`. Readers only say what the file holds;
which classes become which labels, and what counts as a domain, is decided in `register`.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedstore.errors import EmbedstoreError
from embedstore.tables import MALFORMED, file_name, table_rows


@dataclass(frozen=True)
class SourceSlide:
    """One image file as the annotation file describes it.

    width and height are level-0 pixels, None where the file does not say; attributes holds every
    other scalar the file says about the slide (as text), so that `--domain-from` can name one.
    """

    slide: str
    width: int | None = None
    height: int | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceAnnotation:
    """One labelled point: centre in level-0 pixels, class name as the file spells it.

    split is train, val or test where the file says so, votes what each expert said.
    """

    slide: str
    source_id: str
    x_l0: float
    y_l0: float
    category: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    votes: tuple[str, ...] = ()
    split: str | None = None


@dataclass(frozen=True)
class AnnotationFile:
    """What one file holds. `domain_key` and `case_key` name the format's usual attributes.

    kind is "slide" where slides are images to cut patches from, "patch" where each is one patch.
    """

    path: Path
    format: str
    slides: dict[str, SourceSlide]
    annotations: list[SourceAnnotation]
    domain_key: str | None
    case_key: str | None
    notes: list[str]
    kind: str = "slide"


def read_annotations(path: Path, format: str = "auto") -> AnnotationFile:
    """Return the content of an annotation file; `format` is a key of READERS or "auto"."""
    if not path.is_file():
        raise EmbedstoreError(f"no annotation file at {path}; give an existing file")
    if format == "auto":
        format = _detect(path)
    if format not in READERS:
        raise EmbedstoreError(f"unknown format '{format}'; allowed: auto, {', '.join(READERS)}")
    try:
        content = READERS[format](path)
    except MALFORMED as e:
        raise EmbedstoreError(
            f"{path} does not read as {format} ({type(e).__name__}: {e}); "
            f"name the right one with --format {'|'.join(READERS)}"
        ) from e
    if not content.annotations:
        raise EmbedstoreError(f"{path} holds no annotations; nothing to register")
    return content


def _detect(path: Path) -> str:
    with path.open("rb") as f:
        head = f.read(4096)
    if head.startswith(b"SQLite format 3"):
        return "sliderunner"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{"):
        return "midog"
    if path.suffix.lower() in (".csv", ".tsv", ".txt") and b"\x00" not in head:
        return "csv"
    raise EmbedstoreError(
        f"cannot tell the format of {path}; name it with --format {'|'.join(READERS)}"
    )


def read_midog(path: Path) -> AnnotationFile:
    """Return MIDOG's JSON: COCO's keys, but bbox is [x1, y1, x2, y2] in level-0 pixels.

    Source: MIDOG++ (Aubreville et al. 2023). Images without annotations are unlabelled, not free
    of mitoses, so they are left out and counted.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    classes = {c["id"]: str(c["name"]) for c in data["categories"]}
    images = {}
    for image in data["images"]:
        scalars = {k: str(v) for k, v in image.items() if isinstance(v, str | int | float)}
        width, height = (
            None if image.get(k) is None else int(image[k]) for k in ("width", "height")
        )
        images[image["id"]] = SourceSlide(file_name(image["file_name"]), width, height, scalars)
    annotations = []
    for a in data["annotations"]:
        x1, y1, x2, y2 = a["bbox"]
        if x2 < x1 or y2 < y1:
            raise EmbedstoreError(
                f"{path}: box {a['bbox']} of annotation {a['id']} ends before it starts; MIDOG's "
                "boxes are [x1, y1, x2, y2], not COCO's [x, y, width, height]: convert them"
            )
        slide = images[a["image_id"]]
        votes = tuple(classes.get(v, str(v)) for v in a.get("labels", ()))
        annotations.append(
            SourceAnnotation(
                slide.slide, str(a["id"]), (x1 + x2) / 2, (y1 + y2) / 2,
                classes[a["category_id"]], slide.attributes, votes,
            )
        )  # fmt: skip
    case_key = next((k for k in ("case", "slide") if _any_has(images.values(), k)), None)
    domain_key = next((k for k in ("tumor_type", "domain") if _any_has(images.values(), k)), None)
    return _annotation_file(
        path, "midog", list(images.values()), annotations, domain_key, case_key, []
    )


def read_sliderunner(path: Path) -> AnnotationFile:
    """Return a SlideRunner database (Aubreville et al. 2018), in its older or newer table form.

    The centre is the mean of an annotation's coordinates; rows marked deleted are skipped, as are
    annotations without an agreed class or without coordinates. Columns are asked for by name,
    since their order differs between files.
    """
    notes: list[str] = []
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        columns = {
            t: {r["name"] for r in db.execute(f"pragma table_info({t})")}
            for t in ("Slides", "Annotations")
        }
        slides = {}
        for row in db.execute("select * from Slides"):
            scalars = {k: str(row[k]) for k in row.keys() if row[k] is not None}  # noqa: SIM118
            width, height = (
                int(row[k]) if k in columns["Slides"] and row[k] else None
                for k in ("width", "height")
            )
            slides[row["uid"]] = SourceSlide(file_name(row["filename"]), width, height, scalars)
        classes = {r["uid"]: str(r["name"]) for r in db.execute("select * from Classes")}
        deleted = "a.deleted" if "deleted" in columns["Annotations"] else "0"
        annotations, n_deleted, n_unclassed, n_placeless = [], 0, 0, 0
        for row in db.execute(
            f"select a.uid, a.slide, a.agreedClass as class, {deleted} as deleted, "
            "avg(c.coordinateX) as x, avg(c.coordinateY) as y from Annotations a "
            "left join Annotations_coordinates c on c.annoId = a.uid group by a.uid order by a.uid"
        ):
            if row["deleted"]:
                n_deleted += 1
            elif row["class"] not in classes or row["slide"] not in slides:
                n_unclassed += 1
            elif row["x"] is None or row["y"] is None:
                n_placeless += 1
            else:
                slide = slides[row["slide"]]
                annotations.append(
                    SourceAnnotation(
                        slide.slide, str(row["uid"]), row["x"], row["y"],
                        classes[row["class"]], slide.attributes,
                    )
                )  # fmt: skip
    if n_deleted:
        notes.append(f"{n_deleted} annotations marked deleted were left out")
    if n_unclassed:
        notes.append(f"{n_unclassed} annotations without an agreed class were left out")
    if n_placeless:
        notes.append(f"{n_placeless} annotations without coordinates were left out")
    return _annotation_file(
        path, "sliderunner", list(slides.values()), annotations, None, None, notes
    )


def read_csv(path: Path) -> AnnotationFile:
    """Return a table with columns slide (or path), x, y, label, and any others as attributes.

    x and y are level-0 pixels. Columns domain, case, width, height and id are used where present;
    without an id the source id is a digest of slide, x and y, which sorting and relabelling keep.
    """
    rows = table_rows(path)
    header = list(rows[0]) if rows else []
    slide_key = next((k for k in ("slide", "path") if k in header), None)
    missing = [k for k in ("x", "y", "label") if k not in header]
    if slide_key is None or missing:
        raise EmbedstoreError(
            f"{path} has columns {', '.join(header) or 'none'}; "
            "needed: slide (or path), x, y, label"
        )
    slides: dict[str, SourceSlide] = {}
    seen: dict[tuple[str, str], SourceAnnotation] = {}
    stated: dict[str, str] = {}
    repeats: list[int] = []
    for n, row in enumerate(rows, start=2):
        new = _csv_annotation(f"{path} line {n}", row, slide_key)
        if (first := stated.setdefault(new.slide, row[slide_key])) != row[slide_key]:
            raise EmbedstoreError(
                f"{path} line {n}: '{row[slide_key]}' and '{first}' have one file name; a slide is "
                "known by its file name, so give each file a name of its own"
            )
        old = seen.setdefault((new.slide, new.source_id), new)
        if (old.x_l0, old.y_l0, old.category) != (new.x_l0, new.y_l0, new.category):
            raise EmbedstoreError(
                f"{path} line {n}: {new.slide} has {new.source_id} twice, at ({new.x_l0:g}, "
                f"{new.y_l0:g}) as '{new.category}' and at ({old.x_l0:g}, {old.y_l0:g}) as "
                f"'{old.category}'; keep one of them"
            )
        if old is not new:
            repeats.append(n)
        width, height = (
            int(float(new.attributes[k])) if k in new.attributes else None
            for k in ("width", "height")
        )
        of_slide = {k: v for k, v in new.attributes.items() if k not in ("x", "y", "label", "id")}
        slides.setdefault(new.slide, SourceSlide(new.slide, width, height, of_slide))
    notes = []
    if repeats:
        notes.append(
            f"{len(repeats)} rows repeat earlier ones and were left out (line {repeats[0]})"
        )
    domain, case = (k if k in header else None for k in ("domain", "case"))
    annotations = list(seen.values())
    return _annotation_file(path, "csv", list(slides.values()), annotations, domain, case, notes)


def _csv_annotation(where: str, row: Mapping[str, Any], slide_key: str) -> SourceAnnotation:
    try:
        x, y = float(row["x"]), float(row["y"])
    except (TypeError, ValueError):
        raise EmbedstoreError(
            f"{where}: x='{row['x']}', y='{row['y']}' are not numbers; "
            "give the centre in level-0 pixels"
        ) from None
    if not row[slide_key] or not row["label"]:
        raise EmbedstoreError(f"{where}: slide or label is empty; fill or drop the row")
    slide = file_name(row[slide_key])
    attributes = {k: v for k, v in row.items() if k and isinstance(v, str) and v != ""}
    source_id = attributes.get("id") or _content_id(slide, x, y)
    return SourceAnnotation(slide, source_id, x, y, row["label"], attributes)


READERS: dict[str, Callable[[Path], AnnotationFile]] = {
    "midog": read_midog,
    "sliderunner": read_sliderunner,
    "csv": read_csv,
}


def _annotation_file(
    path: Path,
    format: str,
    slides: list[SourceSlide],
    annotations: list[SourceAnnotation],
    domain_key: str | None,
    case_key: str | None,
    notes: list[str],
) -> AnnotationFile:
    by_name: dict[str, SourceSlide] = {}
    doubles = {s.slide for s in slides if by_name.setdefault(s.slide, s) is not s}
    if doubles:
        raise EmbedstoreError(
            f"{path} names several images {', '.join(sorted(doubles)[:5])}; a slide is known by "
            "its file name, so give each file a name of its own"
        )
    used = {a.slide for a in annotations}
    if len(used) < len(by_name):
        notes.append(
            f"{len(by_name) - len(used)} of {len(by_name)} slides carry no annotation "
            "and were left out"
        )
    kept = {name: s for name, s in by_name.items() if name in used}
    return AnnotationFile(path, format, kept, annotations, domain_key, case_key, notes)


def _any_has(slides: Any, key: str) -> bool:
    return any(key in s.attributes for s in slides)


def _content_id(slide: str, x: float, y: float) -> str:
    return hashlib.sha256(f"{slide}\t{x!r}\t{y!r}".encode()).hexdigest()[:12]
