"""Cells in doubt as files: a CSV that `add` reads again, or GeoJSON for QuPath, one a slide."""

import csv
import functools
import io
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.files.objects import Place
from embedstore.files.output import write_whole
from embedstore.files.targets import folder_target, target
from probes.studies.doubtful import ERROR, Doubt


def doubts_target(output: str, *, overwrite: bool) -> Place:
    """Return the place of FILE.csv or a folder; UsageError where files are there, unasked."""
    if output.lower().endswith(".csv"):
        return target(output, overwrite=overwrite)
    return folder_target(output, own=None, overwrite=overwrite)


def write_doubts(doubts: Sequence[Doubt], output: Path) -> list[Path]:
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
    slides: dict[str, list[Doubt]] = {}
    for d in doubts:
        if d.x is not None:
            slides.setdefault(d.slide, []).append(d)
    if doubts and not slides:
        raise EmbedstoreError("pre-cropped patches have no place on a slide; name FILE.csv instead")
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for slide, mine in slides.items():
        path = output / f"{slide}.geojson"  # as a whole: `add` knows the slide by it
        content = json.dumps(_features(mine), indent=1, ensure_ascii=False).encode()
        write_whole(path, functools.partial(_put, content))
        written.append(path)
    return written


def _put(content: bytes, sink: BinaryIO) -> int:
    return sink.write(content)


def _csv(doubts: Sequence[Doubt]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f.name for f in fields(Doubt)]
    writer.writerow(names)
    for d in doubts:
        values = [getattr(d, n) for n in names]
        writer.writerow(["" if v is None else v for v in values])
    return out.getvalue()


def _features(doubts: Sequence[Doubt]) -> dict[str, Any]:
    """Return QuPath's FeatureCollection: a point a cell, classified as the store has it."""
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": d.id,
                "geometry": {"type": "Point", "coordinates": [d.x, d.y]},
                "properties": {
                    "objectType": "annotation",
                    "name": f"{d.suggested}? ({d.own_probability:.2f})"
                    if d.kind == ERROR
                    else f"ambiguous ({d.own_probability:.2f})",
                    "classification": {"name": d.label},
                    "measurements": {
                        "own_probability": d.own_probability,
                        "n_missed": d.n_missed,
                        "n_models": d.n_models,
                    },
                },
            }
            for d in doubts
        ],
    }
