"""The rows of `slides` that `add` writes: where each file lies, its size, scale and state."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedstore.add.changes import Before
from embedstore.annotations.source import AnnotationFile, SourceSlide
from embedstore.errors import EmbedstoreError
from embedstore.slides.slide import (
    MPP_MAX,
    MPP_MIN,
    SLIDE_SUFFIXES,
    is_plausible_mpp,
    probe,
    probe_patch,
)


class SlideFinder:
    """Finds the file of a slide or patch in `--slides DIR` or beside the annotation file."""

    def __init__(self, content: AnnotationFile, folder: Path | None) -> None:
        """Look in folder, if given; paths that the file states may be relative to its own."""
        self._kind, self._folder, self._beside = content.kind, folder, content.folder
        self._by_stem: dict[str, list[Path]] | None = None

    def find(self, name: str, stated: str | None) -> Path | None:
        """Return where a slide's file is, or None; `stated` is the path its file gives it.

        A name without a suffix stands for the one slide file of that stem; EmbedstoreError where
        there are several.
        """
        if self._kind == "patch":
            places = [d / name for d in (self._folder, self._beside) if d is not None]
        else:
            places = [self._folder / (stated or name), self._folder / name] if self._folder else []
            if stated:
                places += [Path(stated), self._beside / stated]
        file = next((p for p in places if p.is_file()), None)
        if file is None and self._kind == "slide":
            file = self._of_stem(name)
        return file.resolve() if file else None

    def _of_stem(self, name: str) -> Path | None:
        if self._folder is None:
            return None
        if self._by_stem is None:
            self._by_stem = {}
            for path in sorted(self._folder.iterdir()):
                if path.suffix.lower() in SLIDE_SUFFIXES and path.is_file():
                    self._by_stem.setdefault(path.stem, []).append(path)
        candidates = self._by_stem.get(name, [])
        if len(candidates) > 1:
            raise EmbedstoreError(
                f"slide {name} could be {', '.join(p.name for p in candidates)} in {self._folder}; "
                "name it with its ending, or keep one of them there"
            )
        return candidates[0] if candidates else None


def slide_row(
    dataset: str,
    slide: SourceSlide,
    attributes: Mapping[str, str],
    kind: str,
    path: Path | None,
    mpp: float | None,
    before: Before,
) -> dict[str, Any]:
    """Return a slide's row but for its case; mpp is the option's, path where its file lies."""
    old = before.slides.get(slide.slide, {})
    if old.get("kind", kind) != kind:
        raise EmbedstoreError(
            f"{slide.slide} is registered in '{dataset}' as a {old['kind']}, not as a {kind}; "
            "register these under another dataset name"
        )
    if path is None and old.get("path"):
        path = Path(old["path"])  # an earlier add was told where it is, this one was not
    row = {
        "slide_id": f"{dataset}/{slide.slide}",
        "dataset": dataset,
        "slide": slide.slide,
        "kind": kind,
        "path": str(path) if path else None,
        "width": slide.width,
        "height": slide.height,
        "scanner": attributes.get("scanner") or attributes.get("Scanner"),
        "attributes": json.dumps(dict(sorted(attributes.items())), ensure_ascii=False),
    }
    if kind == "patch":
        return row | probe_patch(path)
    given: tuple[float | None, str | None]
    if mpp:
        given = mpp, "option"
    elif stated_mpp := _table_mpp(slide.slide, attributes):
        given = stated_mpp, "slide table"
    else:
        stated = old.get("mpp_source") in (None, "slide")
        of_dataset = before.entry.get("mpp")
        of_all = (of_dataset, "option") if of_dataset else (None, None)
        given = of_all if stated else (old["mpp"], old["mpp_source"])
    return row | probe(path, given)


def note_sizes(slides: list[dict[str, Any]], notes: list[str]) -> None:
    """Append how many patches have which size, unless all are as models take them: 224 x 224."""
    sizes = Counter((r["width"], r["height"]) for r in slides if r["status"] == "ok")
    if set(sizes) <= {(224, 224)}:
        return
    common = [f"{n:,} are {width} x {height}" for (width, height), n in sizes.most_common(5)]
    if len(sizes) > 5:
        rest = sum(n for _, n in sizes.most_common()[5:])
        common.append(f"{rest:,} have one of {len(sizes) - 5:,} other sizes")
    notes.append(
        f"patches by size in pixels: {', '.join(common)}; ingest resizes them to --patch-px and "
        "stores that it did"
    )


def _table_mpp(slide: str, attributes: Mapping[str, str]) -> float | None:
    if "mpp" not in attributes:
        return None
    try:
        mpp = float(attributes["mpp"])
    except ValueError:
        mpp = None
    if not is_plausible_mpp(mpp):
        raise EmbedstoreError(
            f"the mpp of slide {slide}, '{attributes['mpp']}', is not between {MPP_MIN} and "
            f"{MPP_MAX} um/px; correct the table"
        )
    return mpp
