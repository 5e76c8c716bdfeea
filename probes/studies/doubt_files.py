"""Cells in doubt as files: a CSV that `add` reads again, or GeoJSON for QuPath, one a slide."""

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.exchange.qupath import Cell, write_cells
from embedstore.files.objects import Place
from embedstore.files.output import write_whole
from embedstore.files.targets import folder_target, target
from embedstore.store import Store
from probes.studies.doubtful import ERROR, Doubt


def doubts_target(output: str, *, overwrite: bool) -> Place:
    """Return the place of FILE.csv or a folder; UsageError where files are there, unasked."""
    if output.lower().endswith(".csv"):
        return target(output, overwrite=overwrite)
    return folder_target(output, own=None, overwrite=overwrite)


def write_doubts(store: Store, doubts: Sequence[Doubt], output: Path) -> list[Path]:
    """Write doubts to FILE.csv, or as FOLDER/SLIDE.geojson; return what was written.

    Labels are those that the store has: mend them there, and `embedstore add` takes the file. A
    feature's name says what the models make of it. Cells of patches, which have no place on a
    slide, go to CSV alone; EmbedstoreError where a folder is asked for and none has one.
    """
    if output.suffix.lower() == ".csv":
        write_whole(output, lambda sink: sink.write(_csv(doubts).encode()))
        return [output]
    if output.suffix:
        raise UsageError(f"{output}: name FILE.csv, or a folder for GeoJSON of each slide")
    if doubts and all(d.x is None for d in doubts):
        raise EmbedstoreError("pre-cropped patches have no place on a slide; name FILE.csv instead")
    return write_cells(store, [_cell(d) for d in doubts], output)


def _cell(d: Doubt) -> Cell:
    says = f"{d.suggested}?" if d.kind == ERROR else "ambiguous"
    return Cell(
        d.annotation_id,
        f"{says} ({d.own_probability:.2f})",
        {"own_probability": d.own_probability, "n_missed": d.n_missed, "n_models": d.n_models},
    )


def _csv(doubts: Sequence[Doubt]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f.name for f in fields(Doubt)]
    writer.writerow(names)
    for d in doubts:
        values = [getattr(d, n) for n in names]
        writer.writerow(["" if v is None else v for v in values])
    return out.getvalue()
