"""Files of tools that are not read here: each is named, with what to export in its place."""

from collections.abc import Callable
from typing import Any, NamedTuple

from embedstore.annotations.format import Glance
from embedstore.annotations.midog_coco import PARTS

AS_COCO = "export it as COCO"
AS_TABLE = "or as a CSV with the columns slide, x, y, label"


class Other(NamedTuple):
    """A tool whose files are not read: how one is known, what it is, what to do."""

    is_its: Callable[[Any], bool]
    what: str
    way_out: str


def _is_dict_with(data: Any, *keys: str) -> bool:
    return isinstance(data, dict) and all(k in data for k in keys)


def _are_dicts_with(data: Any, *keys: str) -> bool:
    return isinstance(data, list) and bool(data) and all(_is_dict_with(d, *keys) for d in data)


def _is_via(data: Any) -> bool:
    if _is_dict_with(data, "_via_img_metadata") or _is_dict_with(data, "_via_settings"):
        return True
    values = list(data.values()) if isinstance(data, dict) else []
    return _are_dicts_with(values, "regions", "filename")


def _lacking(data: Any) -> list[str]:
    return [p for p in PARTS if not isinstance(data.get(p), list)]


def _is_part_of_coco(data: Any) -> bool:
    return isinstance(data, dict) and 0 < len(_lacking(data)) < len(PARTS)


OTHERS: tuple[Other, ...] = (
    Other(
        _is_via, "a project or export of the VGG Image Annotator", f"{AS_COCO} there, {AS_TABLE}"
    ),
    Other(
        lambda d: (
            _are_dicts_with(d, "data", "annotations") or _are_dicts_with(d, "data", "completions")
        ),
        "an export of Label Studio",
        f"{AS_COCO} there, {AS_TABLE}",
    ),
    Other(
        lambda d: _is_dict_with(d, "objects", "size"),
        "an annotation of Supervisely",
        f"{AS_COCO} there, {AS_TABLE}",
    ),
    Other(
        lambda d: _is_dict_with(d, "item", "annotations"),
        "an annotation of Darwin (V7)",
        f"{AS_COCO} there, {AS_TABLE}",
    ),
    Other(
        lambda d: _are_dicts_with(d, "location", "term"),
        "a list of annotations of Cytomine",
        "export its terms and the centres of its annotations as a CSV with the columns slide, x, "
        "y, label",
    ),
    Other(
        lambda d: _are_dicts_with(d, "image_id", "category_id"),
        "a list of COCO's detections, without the images and categories that its ids mean",
        "put it under 'annotations' of a file that has 'images' and 'categories' as well",
    ),
    Other(
        lambda d: _is_dict_with(d, "nbformat", "cells"),
        "a Jupyter notebook",
        "give the file of annotations",
    ),
)

_XML: dict[bytes, str] = {
    b"<ASAP_Annotations": "ASAP's XML",
    b"<Annotations": "Aperio ImageScope's XML",
    b"<annotations": "an XML of CVAT or of the like",
    b"<annotation": "Pascal VOC's XML",
}


def named(file: Glance) -> str | None:
    """Return what a file is that no format claims and what to export in its place, or None.

    The text goes on after "PATH is".
    """
    if file.is_json:
        return _json(file.json)
    for start, what in _XML.items():
        if start in file.head:
            return (
                f"{what}, which is not read here; open it in QuPath and export GeoJSON, or write a "
                "CSV with the columns slide, x, y, label"
            )
    return None


def _json(data: Any) -> str:
    for other in OTHERS:
        if other.is_its(data):
            return f"{other.what}, which is not read here; {other.way_out}"
    if _is_part_of_coco(data):
        return (
            f"a JSON file as COCO's, but without a list of {', '.join(_lacking(data))}; export it "
            f"whole ({', '.join(PARTS)})"
        )
    keys = list(data) if isinstance(data, dict) else []
    of = f"with the keys {', '.join(map(repr, keys[:6]))}" if keys else f"a {_kind(data)}"
    return (
        f"JSON {of}{', ...' * (len(keys) > 6)}, of no tool that is known here; export GeoJSON "
        f"(QuPath), COCO's JSON, {AS_TABLE.removeprefix('or as ')}"
    )


def _kind(data: Any) -> str:
    if isinstance(data, list):
        return f"list of {len(data)}"
    return "single value" if not isinstance(data, dict) else "dict without keys"
