"""The formats of annotations: one row of `READERS` each, and how a file's format is told."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from embedstore.annotations.cropped import read_imagefolder, read_patches
from embedstore.annotations.geojson import is_geojson, read_geojson
from embedstore.annotations.midog_coco import load_json, read_coco, read_midog, told_boxes
from embedstore.annotations.points import read_csv
from embedstore.annotations.sliderunner import read_sliderunner
from embedstore.annotations.source import AnnotationFile
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.files.tables import MALFORMED, is_parquet, table_columns

READERS: dict[str, Callable[[Path], AnnotationFile]] = {
    "midog": read_midog,
    "coco": read_coco,
    "sliderunner": read_sliderunner,
    "csv": read_csv,
    "geojson": read_geojson,
    "patches": read_patches,
    "imagefolder": read_imagefolder,
}


def read_annotations(path: Path, format: str = "auto") -> AnnotationFile:
    """Return what an annotation file or folder holds; `format` is a key of READERS or "auto"."""
    if format != "auto" and format not in READERS:
        raise UsageError(f"unknown format '{format}'; allowed: auto, {', '.join(READERS)}")
    if not path.exists():
        raise EmbedstoreError(f"no annotation file at {path}; give an existing file or folder")
    told: list[str] = []
    try:
        if format == "auto":
            format, told = _detect(path)
        content = READERS[format](path)
    except MALFORMED as e:
        what = "in any known format" if format == "auto" else f"as {format}"
        raise EmbedstoreError(
            f"{path} does not read {what} ({type(e).__name__}: {e}); "
            f"name the right one with --format {'|'.join(READERS)}"
        ) from e
    if not content.annotations:
        why = f" ({'; '.join(content.notes)})" if content.notes else ""
        raise EmbedstoreError(f"{path} holds no annotations{why}; nothing to register")
    return replace(content, notes=[*told, *content.notes])


def _detect(path: Path) -> tuple[str, list[str]]:
    """Return the format of a file or folder, and notes on what was taken for granted."""
    if path.is_dir():
        found = any(p.suffix.lower() in (".geojson", ".json") for p in path.iterdir())
        return "geojson" if found else "imagefolder", []
    with path.open("rb") as f:
        head = f.read(4096)
    if head.startswith(b"SQLite format 3"):
        return "sliderunner", []
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"{", b"[")):
        return _detect_json(path)
    is_delimited = path.suffix.lower() in (".csv", ".tsv", ".txt") and b"\x00" not in head
    if is_delimited or is_parquet(path):
        columns = set(table_columns(path))
        is_patches = "path" in columns and "label" in columns and not columns & {"x", "y"}
        return "patches" if is_patches else "csv", []
    raise EmbedstoreError(
        f"cannot tell the format of {path}; name it with --format {'|'.join(READERS)}"
    )


def _detect_json(path: Path) -> tuple[str, list[str]]:
    data = load_json(path)
    return ("geojson", []) if is_geojson(data) else told_boxes(data)
