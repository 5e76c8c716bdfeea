"""Cells that a study found as files: a CSV that `add` reads again, or GeoJSON for QuPath."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.exchange.qupath import Cell, write_cells
from embedstore.files.objects import Place
from embedstore.files.output import write_whole
from embedstore.files.targets import folder_target, target
from embedstore.store import Store


@dataclass(frozen=True, kw_only=True)
class Found:
    """A cell that a study found; columns of the CSV file, of which `add` reads the first five.

    x and y are its centre in level-0 pixels, None for a pre-cropped patch; id is that of its file.
    """

    slide: str
    x: float | None
    y: float | None
    label: str
    id: str
    annotation_id: str

    def cell(self) -> Cell:
        """Return it for QuPath, with what is said of it."""
        return Cell(self.annotation_id, "")


def cells_target(output: str, *, overwrite: bool) -> Place:
    """Return the place of FILE.csv or a folder; UsageError where files are there, unasked."""
    if output.lower().endswith(".csv"):
        return target(output, overwrite=overwrite)
    return folder_target(output, own=None, overwrite=overwrite)


def write_found(store: Store, cells: Sequence[Found], output: Path) -> list[Path]:
    """Write cells to FILE.csv, or as FOLDER/SLIDE.geojson; return what was written.

    Labels are those that the store has: mend them there, and `embedstore add` takes the file. Cells
    of patches, which have no place on a slide, go to CSV alone; EmbedstoreError where a folder is
    asked for and none has one.
    """
    if output.suffix.lower() == ".csv":
        write_whole(output, lambda sink: sink.write(_csv(cells).encode()))
        return [output]
    if output.suffix:
        raise UsageError(f"{output}: name FILE.csv, or a folder for GeoJSON of each slide")
    if cells and all(c.x is None for c in cells):
        raise EmbedstoreError("pre-cropped patches have no place on a slide; name FILE.csv instead")
    return write_cells(store, [c.cell() for c in cells], output)


def _csv(cells: Sequence[Found]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f.name for f in fields(cells[0] if cells else Found)]
    writer.writerow(names)
    for c in cells:
        values = [getattr(c, n) for n in names]
        writer.writerow(["" if v is None else v for v in values])
    return out.getvalue()
