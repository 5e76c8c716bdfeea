"""Annotations meet the tiles of other tools: whose slide a file is of, which tile is nearest."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.exchange.h5 import SUFFIXES, read_centres, read_features
from embedstore.exchange.narrow import narrow, notes_on
from embedstore.exchange.vector_files import VectorFile

WITHIN_PX = 1.0


@dataclass(frozen=True)
class TileOptions:
    """How far a tile's centre may be from an annotation, and how wide tiles are; level-0 pixels.

    None: WITHIN_PX, and what the files say.
    """

    within_px: float | None = None
    tile_px_l0: float | None = None

    def check(self, *, is_h5: bool) -> None:
        """Raise EmbedstoreError for a distance or width that is none, or without h5 files."""
        for option, value, least in (
            ("--within", self.within_px, 0.0),
            ("--tile-px-l0", self.tile_px_l0, 1.0),
        ):
            if value is None:
                continue
            if not is_h5:
                raise EmbedstoreError(f"{option} goes with h5 files only; leave it out")
            if not (math.isfinite(value) and value >= least):
                raise EmbedstoreError(f"{option} {value:g}: give at least {least:g} level-0 pixels")


@dataclass
class _Matched:
    """What the files gave, slide by slide."""

    ids: list[str]
    blocks: list[NDArray[np.float32]]
    offsets: list[float]
    too_far: list[float]
    n_shared: int = 0
    dtype: str = ""
    small: list[str] = field(default_factory=list)
    fields: dict[str, float] = field(default_factory=dict)
    """How wide each file's tiles are, in um, where the slide's mpp is known."""


def read_tiles(
    path: Path,
    annotations: Iterable[Mapping[str, Any]],
    options: TileOptions,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> VectorFile:
    """Return one embedding per annotation: the features of the tile whose centre is nearest to it.

    path is an h5 file of one slide or a folder of them, annotations rows with annotation_id, slide,
    x_l0 and y_l0. on_progress(done, total) counts files. The notes tell the offsets, what had no
    tile within reach, and which files and slides had no counterpart.
    """
    by_slide: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in annotations:
        by_slide[row["slide"]].append(row)
    files, unmatched = slide_files(path, list(by_slide))
    within = WITHIN_PX if options.within_px is None else options.within_px
    matched, faults = _Matched([], [], [], []), dict[str, list[str]]()
    for n, (slide, file) in enumerate(sorted(files.items())):
        on_progress(n, len(files))
        _match_slide(file, by_slide[slide], within, options.tile_px_l0, matched, faults)
    on_progress(len(files), len(files))
    if not matched.ids:
        _none_matched(path, matched, within)
    vectors = (
        np.concatenate(matched.blocks)
        if not faults.get(_WIDTHS)
        else np.zeros((len(matched.ids), 0), np.float32)
    )
    notes = _notes(matched, within, unmatched, len(by_slide) - len(files))
    notes += notes_on(matched.small)
    _check_fields(matched.fields, faults, notes)
    return VectorFile(matched.ids, vectors, matched.dtype, faults=faults, notes=notes)


UNLIKE, DIFFERENT = 1.25, 1.03
"""The ratio of the widest field to the narrowest from which it is no longer one, and is told."""


def _check_fields(
    fields: Mapping[str, float], faults: dict[str, list[str]], notes: list[str]
) -> None:
    """Put tiles of unlike widths in um into faults, slightly different ones into notes."""
    if not fields:
        return
    narrow_file, wide_file = (f(fields, key=fields.__getitem__) for f in (min, max))
    low, high = fields[narrow_file], fields[wide_file]
    said = f"{low:.3g} um on {narrow_file}, {high:.3g} um on {wide_file}"
    if high > UNLIKE * low:
        what = f"files have tiles of unlike fields ({said}), and a model's vectors are of one"
        faults[what] = [f for f, um in fields.items() if um > UNLIKE * low]
    elif high > DIFFERENT * low:
        notes.append(f"tiles are not of one width: {said}")


_WIDTHS = "files have features of another width than the first"


def slide_files(path: Path, slides: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Return the file of each slide that has one, and the names of files that match no slide.

    A file matches the slide whose name, with or without its suffix, is the file's without its own.
    """
    if path.is_dir():
        paths = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not paths:
            raise EmbedstoreError(f"folder {path} holds no {' or '.join(SUFFIXES)} file")
    else:
        paths = [path]
    by_stem: dict[str, list[str]] = defaultdict(list)
    for slide in slides:
        by_stem[Path(slide).stem].append(slide)
    files: dict[str, Path] = {}
    unmatched, problems = [], []
    for p in paths:
        matches = [p.stem] if p.stem in slides else by_stem.get(p.stem, [])
        if not matches:
            unmatched.append(p.name)
        elif len(matches) > 1:
            problems.append(f"{p.name} may be of slide {' or '.join(matches)}")
        elif files.setdefault(matches[0], p) != p:
            problems.append(f"{files[matches[0]].name} and {p.name} are both of slide {matches[0]}")
    if problems:
        raise EmbedstoreError(
            f"{path}: {'; '.join(problems)}; name each file as its slide, suffix included, with .h5"
        )
    if not files:
        raise EmbedstoreError(
            f"{path}: no file matches a slide (files: {', '.join(unmatched[:3])}; slides: "
            f"{', '.join(sorted(slides)[:3]) or 'none'}); a file is named as its slide"
        )
    return files, unmatched


def _match_slide(
    file: Path,
    rows: Sequence[Mapping[str, Any]],
    within: float,
    tile_px_l0: float | None,
    matched: _Matched,
    faults: dict[str, list[str]],
) -> None:
    from scipy.spatial import cKDTree

    centres, width_px = read_centres(file, tile_px_l0)
    if not len(centres):
        return  # a slide without tissue has an empty file; its annotations are reported as missing
    points = np.array([(r["x_l0"], r["y_l0"]) for r in rows])
    offsets, nearest = cKDTree(centres).query(points)
    near = offsets <= within
    matched.too_far += offsets[~near].tolist()
    if not near.any():
        return
    tiles, place, count = np.unique(nearest[near], return_inverse=True, return_counts=True)
    features = read_features(file, tiles, len(centres))[place]
    ids = [r["annotation_id"] for r, is_near in zip(rows, near, strict=True) if is_near]
    if (mpp := rows[0].get("mpp")) is not None:
        matched.fields[file.name] = width_px * mpp
    block = narrow(ids, features, faults, matched.small)
    if matched.blocks and matched.blocks[0].shape[1] != block.shape[1]:
        faults.setdefault(_WIDTHS, []).append(
            f"{file.name} ({block.shape[1]}, not {matched.blocks[0].shape[1]})"
        )
    matched.ids += ids
    matched.blocks.append(block)
    matched.offsets += offsets[near].tolist()
    matched.n_shared += int(count[count > 1].sum())
    matched.dtype = str(features.dtype)


def _none_matched(path: Path, matched: _Matched, within: float) -> None:
    if not matched.too_far:
        raise EmbedstoreError(f"{path} holds no tile on any slide of the dataset")
    raise EmbedstoreError(
        f"{path}: no annotation has a tile whose centre is within {within:g} level-0 px (the "
        f"nearest is {min(matched.too_far):.1f} px away, the median "
        f"{np.median(matched.too_far):.1f}); a larger --within PX takes tiles that are not centred "
        "on the annotation"
    )


def _notes(matched: _Matched, within: float, unmatched: list[str], n_without: int) -> list[str]:
    notes = [
        f"{len(matched.ids):,} annotations took the tile nearest to them: its centre is "
        f"{np.median(matched.offsets):.2f} level-0 px away in the median, at most "
        f"{max(matched.offsets):.2f}"
    ]
    if matched.too_far:
        notes.append(
            f"{len(matched.too_far):,} annotations have no tile within {within:g} level-0 px (the "
            f"nearest is {min(matched.too_far):.1f} px away); --within PX sets the reach"
        )
    if matched.n_shared:
        notes.append(f"{matched.n_shared:,} annotations share their tile with another one")
    if unmatched:
        notes.append(
            f"{len(unmatched)} files match no slide of the dataset: {', '.join(unmatched)}"
        )
    if n_without:
        notes.append(f"{n_without} slides have no file")
    return notes
