"""The formats of annotations, found in the files of this folder, and how a file's is detected."""

import pkgutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import embedstore.annotations
from embedstore.annotations.format import Format, Glance
from embedstore.annotations.names import tidied
from embedstore.annotations.source import AnnotationFile
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.files.tables import MALFORMED


def _declared() -> dict[str, Format]:
    """Return the formats that files of this folder declare as FORMATS."""
    names = [m.name for m in pkgutil.iter_modules(embedstore.annotations.__path__)]
    modules = [import_module(f"embedstore.annotations.{n}") for n in names if n != "readers"]
    formats = {k: v for m in modules for k, v in getattr(m, "FORMATS", {}).items()}
    return dict(sorted(formats.items()))


FORMATS: dict[str, Format] = _declared()
"""Format by name."""


def read_annotations(path: Path, format: str = "auto") -> AnnotationFile:
    """Return what an annotation file or folder holds; `format` is a key of FORMATS or "auto"."""
    if format != "auto" and format not in FORMATS:
        raise UsageError(f"unknown format '{format}'; allowed: auto, {', '.join(FORMATS)}")
    if not path.exists():
        raise EmbedstoreError(f"no annotation file at {path}; give an existing file or folder")
    notes: list[str] = []
    try:
        if format == "auto":
            format, notes = _detect(path)
        content = FORMATS[format].read(path)
    except MALFORMED as e:
        what = "in any known format" if format == "auto" else f"as {format}"
        raise EmbedstoreError(
            f"{path} does not read {what} ({type(e).__name__}: {e}); "
            f"name the right one with --format {'|'.join(FORMATS)}"
        ) from e
    if not content.annotations:
        why = f" ({'; '.join(content.notes)})" if content.notes else ""
        raise EmbedstoreError(f"{path} holds no annotations{why}; nothing to register")
    return tidied(replace(content, notes=[*notes, *content.notes]))


def _detect(path: Path) -> tuple[str, list[str]]:
    """Return the format of a file or folder, and notes on what was taken for granted."""
    glance = Glance(path)
    for is_last in (False, True):
        formats = {n: f for n, f in FORMATS.items() if f.is_last == is_last}
        claims = {name: f.claim(glance) for name, f in formats.items()}
        claimed = {name: notes for name, notes in claims.items() if notes is not None}
        if len(claimed) > 1:
            raise EmbedstoreError(
                f"{path} may be {' or '.join(claimed)}; name it with --format {'|'.join(claimed)}"
            )
        for name, notes in claimed.items():
            return name, notes
    raise EmbedstoreError(
        f"cannot tell the format of {path}; name it with --format {'|'.join(FORMATS)}"
    )
