"""Reader of SlideRunner databases: MIDOG 2021, CCMCT in all its variants."""

import sqlite3
from contextlib import closing
from pathlib import Path

from embedstore.annotations.format import Format
from embedstore.annotations.source import (
    AnnotationFile,
    SourceAnnotation,
    SourceSlide,
    keep_annotated,
    note_count,
)
from embedstore.files.tables import file_name

# Columns are asked for by name, since their order differs between files.
_CENTRES = (
    "select a.uid, a.slide, a.agreedClass as class, {deleted} as deleted, "
    "avg(c.coordinateX) as x, avg(c.coordinateY) as y from Annotations a "
    "left join Annotations_coordinates c on c.annoId = a.uid group by a.uid order by a.uid"
)


def read_sliderunner(path: Path) -> AnnotationFile:
    """Return a SlideRunner database (Aubreville et al. 2018), in its older or newer table form.

    The centre is the mean of an annotation's coordinates: of the one of a spot, the two of a box,
    the many of a polygon. Rows marked deleted are left out and counted, as are annotations without
    an agreed class or without coordinates.
    """
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        slides = _slides(db)
        classes = {r["uid"]: str(r["name"]) for r in db.execute("select * from Classes")}
        columns = {r["name"] for r in db.execute("pragma table_info(Annotations)")}
        deleted = "a.deleted" if "deleted" in columns else "0"
        annotations, n_deleted, n_unclassed, n_placeless = [], 0, 0, 0
        for row in db.execute(_CENTRES.format(deleted=deleted)):
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
                        slide.slide,
                        str(row["uid"]),
                        row["x"],
                        row["y"],
                        classes[row["class"]],
                        slide.attributes,
                    )
                )
    notes: list[str] = []
    note_count(notes, n_deleted, "annotations marked deleted were")
    note_count(notes, n_unclassed, "annotations without an agreed class were")
    note_count(notes, n_placeless, "annotations without coordinates were")
    kept = keep_annotated(path, slides.values(), annotations, notes)
    return AnnotationFile(path, "sliderunner", kept, annotations, notes=notes)


def _slides(db: sqlite3.Connection) -> dict[int, SourceSlide]:
    slides = {}
    for row in db.execute("select * from Slides"):
        filled = {k: row[k] for k in row.keys() if row[k] is not None}  # noqa: SIM118
        width, height = (
            int(filled[k]) or None if k in filled else None for k in ("width", "height")
        )
        attributes = {k: str(v) for k, v in filled.items()}
        slides[row["uid"]] = SourceSlide(file_name(row["filename"]), width, height, attributes)
    return slides


FORMATS = {
    "sliderunner": Format(
        read_sliderunner, lambda file: [] if file.head.startswith(b"SQLite format 3") else None
    )
}
