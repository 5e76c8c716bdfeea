"""Readers of JSON that other tools write, one file an image, or a folder of them: one entry a tool.

LabelMe, the Digital Slide Archive (HistomicsUI), HoVer-Net and CellViT. Places are level-0 pixels.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.annotations.format import Format, Glance, load_json
from embedstore.annotations.outlines import Place, centroid
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
from embedstore.files.folders import is_system, note_unread
from embedstore.files.tables import MALFORMED, file_name

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Drawn:
    """One object of a file: its vertices, or its one place; its class and id, where it has them.

    vertices is None for what is neither a point nor an area.
    """

    vertices: Sequence[Sequence[float]] | None
    category: str | None
    own_id: str | None = None


@dataclass(frozen=True)
class Tool:
    """How a tool's files are known and read; slide is the image that one names, if it names one."""

    is_its: Callable[[Any], bool]
    drawn: Callable[[Any], Iterable[Drawn]]
    slide: Callable[[Any], str | None] = lambda data: None
    notes: Callable[[Any], list[str]] = lambda data: []


def _text(value: Any) -> str | None:
    return str(value).strip() or None if isinstance(value, str | int) else None


# --------------------------------------------------------------------------------- LabelMe


def _labelme(data: Row) -> Iterator[Drawn]:
    for shape in data["shapes"]:
        points, kind = shape.get("points") or [], shape.get("shape_type") or "polygon"
        category = _text(shape.get("label"))
        if kind == "points":
            yield from (Drawn([p], category) for p in points)
        elif kind == "circle":
            yield Drawn(points[:1], category)  # its middle, and a place on its edge
        elif kind in ("rectangle", "polygon", "point", "rotation", "mask"):
            yield Drawn(_corners(points) if kind in ("rectangle", "mask") else points, category)
        else:
            yield Drawn(None, category)


def _corners(points: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    if len(points) != 2:
        return points
    (ax, ay), (bx, by) = (p[:2] for p in points)
    return [(ax, ay), (bx, ay), (bx, by), (ax, by)]


# ------------------------------------------------------------------- Digital Slide Archive


def _documents(data: Any) -> list[Row]:
    """Return the annotation documents of a file, each with its elements."""
    found = data if isinstance(data, list) else [data]
    inner = [d.get("annotation", d) if isinstance(d, dict) else None for d in found]
    return [d for d in inner if isinstance(d, dict) and isinstance(d.get("elements"), list)]


def _dsa(data: Any) -> Iterator[Drawn]:
    for document in _documents(data):
        for element in document["elements"]:
            label = element.get("label")
            named = label.get("value") if isinstance(label, dict) else label
            category = _text(named) or _text(element.get("group")) or _text(document.get("name"))
            kind, own_id = element.get("type"), _text(element.get("id") or element.get("_id"))
            if kind in ("point", "rectangle", "circle", "ellipse"):
                yield Drawn([element["center"]], category, own_id)
            elif kind == "polyline" and element.get("closed"):
                yield Drawn(element["points"], category, own_id)
            else:
                yield Drawn(None, category, own_id)


def _unlabelled(data: Any) -> list[str]:
    n = sum(not (e.get("label") or e.get("group")) for d in _documents(data) for e in d["elements"])
    if not n:
        return []
    return [f"{n} elements have no label and no group: the name of their annotation is the class"]


# -------------------------------------------------------------------- HoVer-Net, CellViT


def _nuclei(data: Row) -> Mapping[Any, Row]:
    """Return HoVer-Net's nuclei by id: under `nuc`, in older files at the top."""
    nuclei: Mapping[Any, Row] = data.get("nuc", data)
    return nuclei


def _is_hovernet(data: Any) -> bool:
    if not isinstance(data, dict) or not isinstance(nuclei := _nuclei(data), dict):
        return False
    return bool(nuclei) and all(isinstance(n, dict) and "centroid" in n for n in nuclei.values())


def _hovernet(data: Row) -> Iterator[Drawn]:
    for own_id, nucleus in _nuclei(data).items():
        yield Drawn([nucleus["centroid"]], _text(nucleus.get("type")), str(own_id))


def _magnification(data: Row) -> list[str]:
    if (mag := data.get("mag")) is None:
        return []
    return [
        f"HoVer-Net's places are pixels at x{mag}, taken as those of level 0: on a slide whose "
        "level 0 is of another magnification they lie elsewhere"
    ]


def _is_cellvit(data: Any) -> bool:
    cells = data.get("cells") if isinstance(data, dict) else None
    if not isinstance(cells, list) or not (cells or "type_map" in data):
        return False
    return all(isinstance(c, dict) and "centroid" in c for c in cells)


def _cellvit(data: Row) -> Iterator[Drawn]:
    names = data.get("type_map") or {}
    for cell in data["cells"]:
        kind = cell.get("type")
        named = names.get(str(kind), kind)
        named = named.get("name") if isinstance(named, dict) else named
        yield Drawn([cell["centroid"]], _text(named))


TOOLS: dict[str, Tool] = {
    "cellvit": Tool(_is_cellvit, _cellvit),
    "dsa": Tool(lambda data: bool(_documents(data)), _dsa, notes=_unlabelled),
    "hovernet": Tool(_is_hovernet, _hovernet, notes=_magnification),
    "labelme": Tool(
        lambda data: isinstance(data, dict) and isinstance(data.get("shapes"), list),
        _labelme,
        slide=lambda data: file_name(data["imagePath"]) if data.get("imagePath") else None,
    ),
}


def tool_of(data: Any) -> str | None:
    """Return the tool that wrote a file's JSON, None where it is none of TOOLS."""
    return next((name for name, tool in TOOLS.items() if tool.is_its(data)), None)


def _read(path: Path, name: str) -> AnnotationFile:
    """Return a tool's labelled objects; what has no class, no place or no area is counted."""
    tool, files = TOOLS[name], json_files(path) if path.is_dir() else [path]
    slides, distinct, counts = dict[str, SourceSlide](), Distinct(), Counter[str]()
    said: Counter[str] = Counter()
    for file, data in _load(path, files, name).items():
        slide = tool.slide(data) or slide_of(file)
        slides.setdefault(slide, SourceSlide(slide))
        said.update(tool.notes(data))
        for n, drawn in enumerate(tool.drawn(data), start=1):
            if (a := _annotation(slide, drawn, counts)) is not None:
                distinct.add(a, file, f"object {n}")
    notes = [f"{text}{f' ({n} files)' * (n > 1)}" for text, n in said.items()]
    for what, n in counts.items():
        note_count(notes, n, what)
    if path.is_dir():
        note_unread(notes, path, files, "annotations end in .json, in no subfolder")
    annotations = distinct.values(notes, "objects")
    kept = keep_annotated(path, slides.values(), annotations, notes)
    return AnnotationFile(path, name, kept, annotations, notes=notes)


def _load(path: Path, files: Iterable[Path], name: str) -> dict[Path, Any]:
    loaded, wrong = {}, []
    for file in files:
        try:
            loaded[file] = load_json(file)
            if not TOOLS[name].is_its(loaded[file]):
                wrong.append(f"{file.name} (of another layout)")
        except MALFORMED as e:
            wrong.append(f"{file.name} ({e})")
    if wrong:
        raise EmbedstoreError(
            f"{path}: not {name}: {', '.join(wrong[:8])}; mend it or take it out of the folder, "
            "or name what this is with --format"
        )
    return loaded


def _annotation(slide: str, drawn: Drawn, counts: "Counter[str]") -> SourceAnnotation | None:
    if drawn.category is None:
        counts["objects without a class were"] += 1
        return None
    if drawn.vertices is None:
        counts["objects that are neither points nor areas were"] += 1
        return None
    try:
        x, y = _middle([(float(p[0]), float(p[1])) for p in drawn.vertices])
    except MALFORMED:
        counts["shapes without usable coordinates were"] += 1
        return None
    return SourceAnnotation(slide, drawn.own_id or content_id(slide, x, y), x, y, drawn.category)


def _middle(vertices: list[Place]) -> Place:
    if not vertices or not all(math.isfinite(v) for place in vertices for v in place):
        raise ValueError("no place")
    x, y, _ = centroid(vertices)
    return x, y


def json_files(folder: Path) -> list[Path]:
    """Return the files of a folder that end in .json; subfolders are not looked into."""
    files = (p for p in folder.iterdir() if p.is_file() and not is_system(p.name))
    return sorted(p for p in files if p.name.lower().endswith(".json"))


def slide_of(file: Path) -> str:
    """Return the slide a file is of: a.svs.json is of a.svs, a.json (or .json.gz) of a."""
    return Path(file.stem).stem if file.suffix.lower() == ".gz" else file.stem


def _format(name: str) -> Format:
    def read(path: Path) -> AnnotationFile:
        return _read(path, name)

    def claim(glance: Glance) -> list[str] | None:
        return [] if tool_of(glance.first_json) == name else None

    return Format(read, claim)


FORMATS = {name: _format(name) for name in TOOLS}
