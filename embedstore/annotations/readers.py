"""The formats of annotations, found in the files of this folder, and how a file's is detected."""

import pkgutil
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import embedstore.annotations
from embedstore.annotations.columns import NOTHING, Declared, check_declared, declare
from embedstore.annotations.format import Format, Glance
from embedstore.annotations.names import tidied
from embedstore.annotations.others import named
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


def read_annotations(
    path: Path, format: str = "auto", declared: Declared = NOTHING
) -> AnnotationFile:
    """Return what an annotation file or folder holds; `format` is a key of FORMATS or "auto"."""
    check_declared(declared)
    if format != "auto" and format not in FORMATS:
        raise UsageError(f"unknown format '{format}'; allowed: auto, {', '.join(FORMATS)}")
    if not path.exists():
        raise EmbedstoreError(f"no annotation file at {path}; give an existing file or folder")
    notes: list[str] = []
    try:
        if format == "auto":
            format, notes = _detect(path, declared)
        content = _read(path, format, declared)
    except MALFORMED as e:
        what = "in any known format" if format == "auto" else f"as {format}"
        raise EmbedstoreError(
            f"{path} does not read {what} ({_in_words(e)}); "
            f"name the right one with --format {'|'.join(FORMATS)}"
        ) from e
    if not content.annotations:
        why = f" ({'; '.join(content.notes)})" if content.notes else ""
        raise EmbedstoreError(f"{path} holds no annotations{why}; nothing to register")
    if declared.case_from_name:
        content = _with_cases(content, declared.case_from_name)
    return tidied(replace(content, notes=[*notes, *content.notes]))


def _read(path: Path, format: str, declared: Declared) -> AnnotationFile:
    """Return what is read, with what is declared of it, by the format itself or here."""
    if FORMATS[format].takes_columns:
        content: AnnotationFile = FORMATS[format].read(path, declared)
        return content
    tables = [name for name, f in FORMATS.items() if f.takes_columns]
    if declared.header or declared.box:
        option = "--columns" if declared.header else "--box"
        raise UsageError(f"{option} is for tables ({', '.join(tables)}); {path} is {format}")
    content = FORMATS[format].read(path)
    if not declared.columns:
        return content
    slides = {
        name: replace(s, attributes=declared.attributes(s.attributes))
        for name, s in content.slides.items()
    }
    of = {name: s.attributes for name, s in slides.items()}
    annotations = [declare(a, declared, of[a.slide]) for a in content.annotations]
    return replace(
        content,
        slides=slides,
        annotations=annotations,
        domain_key="domain" if "domain" in declared.columns else content.domain_key,
        case_key="case" if "case" in declared.columns else content.case_key,
    )


def _with_cases(content: AnnotationFile, pattern: str) -> AnnotationFile:
    """Return the content with the case of each slide as its name has it.

    The pattern is looked for in the name of the file, and in the whole path if it holds a slash;
    its first group is the case, or all that it matches.
    """
    try:
        sought = re.compile(pattern)
    except re.error as e:
        raise UsageError(f"--case-from-name '{pattern}' is no regular expression: {e}") from e
    slides, without = {}, []
    for name, slide in content.slides.items():
        match = sought.search(name if "/" in pattern else name.rsplit("/", 1)[-1])
        case = (match[1] if sought.groups else match[0]) if match else None
        if not case:
            without.append(name)
        slides[name] = replace(slide, attributes={**slide.attributes, "case": case or ""})
    if without:
        raise UsageError(
            f"--case-from-name '{pattern}' matches {len(without)} of {len(slides)} names not, for "
            f"example {without[0]}; the pattern's first group is the case"
        )
    annotations = [
        replace(a, attributes={k: v for k, v in a.attributes.items() if k != "case"})
        for a in content.annotations
    ]
    return replace(content, slides=slides, annotations=annotations, case_key="case")


def _detect(path: Path, declared: Declared) -> tuple[str, list[str]]:
    """Return the format of a file or folder, and notes on what was taken for granted."""
    glance = Glance(path, declared)
    if glance.is_json:
        try:
            _ = glance.json
        except MALFORMED as e:
            raise EmbedstoreError(
                f"{path} begins as JSON and cannot be read as such ({_in_words(e)}); export it anew"
            ) from e
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
    if (said := named(glance)) is not None:
        raise EmbedstoreError(f"{path} is {said}")
    raise EmbedstoreError(
        f"cannot tell the format of {path}; name it with --format {'|'.join(FORMATS)}"
    )


def _in_words(e: BaseException) -> str:
    """Return what an exception says, of a missing key that it is missing."""
    if isinstance(e, KeyError):
        return f"it lacks {e}"
    return str(e) or type(e).__name__
