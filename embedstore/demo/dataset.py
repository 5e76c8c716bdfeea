"""Write a small generated dataset: slides of three stain domains and their annotations, twice.

The annotations of the same points come in MIDOG's JSON form and as a SlideRunner database, with
the kinds of dirt real files have. Nothing in it is real tissue.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.demo.domains import DOMAINS
from embedstore.demo.files import (
    FIGURE,
    LOOK_ALIKE,
    DemoPoint,
    SlidePlan,
    write_midog,
    write_pyramid,
    write_sliderunner,
)
from embedstore.demo.tissue import CellSpec, draw_slide
from embedstore.errors import EmbedstoreError

DEMO_VERSION = 1
"""Raised whenever the same seed would give other files."""


SLIDES = "slides"
MIDOG_JSON = "annotations.json"
SLIDERUNNER_SQLITE = "annotations.sqlite"

_CELL_UM = (56.0, 48.0)  # one annotation per cell of this grid, so that patches seldom overlap
_MARGIN_UM = 10.0  # of tissue around that grid
_SWAPPED = 0.03  # share of annotations drawn as the other label: what experts disagree about


@dataclass(frozen=True)
class DemoDataset:
    """Where the demonstration dataset lies, and how much is in it.

    slides is the folder of TIFF files; n_annotations counts every annotation in the JSON, among
    them n_off_slide whose centre lies outside its slide and n_edge_boxes whose box runs over an
    edge with the centre inside; n_deleted rows stand in the database only, marked deleted.
    """

    slides: Path
    midog_json: Path
    sliderunner_sqlite: Path
    n_domains: int
    n_slides: int
    n_annotations: int
    n_mitotic_figures: int
    n_off_slide: int
    n_edge_boxes: int
    n_deleted: int


def write_demo(
    directory: Path,
    *,
    seed: int = 7,
    progress: Callable[[int, int], None] | None = None,
    n_slides_per_domain: int = 8,
    n_annotations_per_slide: int = 100,
) -> DemoDataset:
    """Return the demonstration dataset in directory, generating it unless it is there already.

    Equal arguments give byte-identical files. progress, if given, is called with (slides done,
    slides in all) from the calling thread. Everything is written to a hidden sibling folder
    first, so an interrupted run leaves nothing at directory.

    Raises:
        EmbedstoreError: directory holds something else, or a demo made with other arguments.

    """
    if n_slides_per_domain < 1 or n_annotations_per_slide < 4:
        raise EmbedstoreError(
            f"a demo of {n_slides_per_domain} slides per domain with {n_annotations_per_slide} "
            "annotations each is too small: at least 1 slide and 4 annotations are needed"
        )
    directory = Path(directory).absolute()
    info = _info(seed, n_slides_per_domain, n_annotations_per_slide)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        return _existing(directory, info)
    plans = _plan(seed, n_slides_per_domain, n_annotations_per_slide)
    # the process id keeps two runs at once apart; the rename at the end decides between them
    partial = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / SLIDES).mkdir(parents=True)
        _write_slides(plans, partial / SLIDES, progress)
        write_sliderunner(plans, partial / SLIDERUNNER_SQLITE)
        write_midog(plans, info, partial / MIDOG_JSON)
        _move_into_place(partial, directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _existing(directory, info)


def _info(seed: int, n_slides: int, n_annotations: int) -> dict[str, Any]:
    return {
        "description": "Generated demonstration data drawn by a program: not real tissue, "
        "no patient or animal, of no diagnostic or scientific use",
        "generator": "embedstore demo",
        "version": DEMO_VERSION,
        "seed": seed,
        "n_slides_per_domain": n_slides,
        "n_annotations_per_slide": n_annotations,
    }


def _existing(directory: Path, info: dict[str, Any]) -> DemoDataset:
    """Return the complete demo that directory holds; EmbedstoreError if it holds anything else."""
    way_out = "choose an empty or new folder, or remove this one"
    try:
        content = json.loads((directory / MIDOG_JSON).read_text(encoding="utf-8"))
        recorded, images = content["info"], content["images"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise EmbedstoreError(f"{directory} exists and is not a demo dataset; {way_out}") from e
    if recorded != info:
        raise EmbedstoreError(
            f"{directory} holds another dataset, {recorded}, not the one asked for, {info}; "
            f"{way_out}"
        )
    needed = [SLIDERUNNER_SQLITE, *(f"{SLIDES}/{image['file_name']}" for image in images)]
    missing = [name for name in needed if not (directory / name).is_file()]
    if missing:
        raise EmbedstoreError(f"the demo dataset in {directory} lacks {missing}; {way_out}")
    return _describe(directory, content)


def _describe(directory: Path, content: dict[str, Any]) -> DemoDataset:
    sizes = {i["id"]: (i["width"], i["height"]) for i in content["images"]}
    n_off_slide = n_edge_boxes = 0
    for annotation in content["annotations"]:
        (x1, y1, x2, y2), (w, h) = annotation["bbox"], sizes[annotation["image_id"]]
        inside = 0 <= (x1 + x2) / 2 < w and 0 <= (y1 + y2) / 2 < h
        n_off_slide += not inside
        n_edge_boxes += inside and (x1 < 0 or y1 < 0 or x2 > w or y2 > h)
    with closing(sqlite3.connect(directory / SLIDERUNNER_SQLITE)) as db:
        (n_deleted,) = db.execute("SELECT COUNT(*) FROM Annotations WHERE deleted = 1").fetchone()
    return DemoDataset(
        slides=directory / SLIDES,
        midog_json=directory / MIDOG_JSON,
        sliderunner_sqlite=directory / SLIDERUNNER_SQLITE,
        n_domains=len({i["tumor_type"] for i in content["images"]}),
        n_slides=len(content["images"]),
        n_annotations=len(content["annotations"]),
        n_mitotic_figures=sum(a["category_id"] == FIGURE for a in content["annotations"]),
        n_off_slide=n_off_slide,
        n_edge_boxes=n_edge_boxes,
        n_deleted=n_deleted,
    )


def _move_into_place(partial: Path, directory: Path) -> None:
    if not directory.exists():
        try:
            partial.rename(directory)
        except OSError:
            if not directory.exists():
                raise
            # another run was first; what it wrote is checked next, like any folder found there
        return
    # an empty folder may be a mount or someone's working directory, so it is filled, not replaced;
    # the JSON carries the marker of completeness and comes last
    for name in (SLIDES, SLIDERUNNER_SQLITE, MIDOG_JSON):
        (partial / name).rename(directory / name)


# --- what is where -------------------------------------------------------------------------------


def _plan(seed: int, n_slides: int, n_annotations: int) -> list[SlidePlan]:
    plans: list[SlidePlan] = []
    for d, domain in enumerate(DOMAINS):
        for s in range(n_slides):
            rng = np.random.default_rng([seed, d, s, 0])
            columns = int(np.ceil(np.sqrt(n_annotations * rng.uniform(0.8, 1.25))))
            rows = -(-n_annotations // columns)
            cell = (_CELL_UM[0] / domain.mpp, _CELL_UM[1] / domain.mpp)
            margin = round(_MARGIN_UM / domain.mpp)
            size = (round(columns * cell[0]), round(rows * cell[1]))
            plan = SlidePlan(
                image_id=len(plans) + 1,
                file_name=f"demo_{len(plans) + 1:03d}.tiff",
                # the first two slides of a domain are of one case: grouping by either differs
                case=f"case_{d + 1}{max(s, 1):02d}",
                domain=domain,
                seed=(seed, d, s, 1),
                size_px=(size[0] + 2 * margin, size[1] + 2 * margin),
                points=_points(rng, size, margin, columns, n_annotations, strays=d == s == 0),
            )
            plans.append(plan)
    return plans


def _points(
    rng: np.random.Generator,
    grid_px: tuple[int, int],
    margin: int,
    columns: int,
    n: int,
    *,
    strays: bool,
) -> tuple[DemoPoint, ...]:
    """Draw n annotations on a grid inside the margin; strays makes the last lie off the slide."""
    width, height = grid_px
    rows = -(-n // columns)
    slots = rng.permutation(rows * columns)[:n]
    x = (slots % columns + rng.uniform(0.3, 0.7, n)) * (width / columns) + margin
    y = (slots // columns + rng.uniform(0.3, 0.7, n)) * (height / rows) + margin
    # two boxes per slide run over an edge with their centre inside, as in MIDOG
    x[0], y[1] = rng.uniform(4, 20), height + 2 * margin - rng.uniform(4, 20)
    if strays:
        x[-1] = width + 2 * margin + 12.0
    whole = rng.uniform(size=n) < 0.9
    x, y = (np.where(whole, np.floor(v), np.floor(v) + 0.5) for v in (x, y))
    share = rng.uniform(0.34, 0.52)
    points = []
    for i in range(n):
        category = FIGURE if rng.uniform() < share else LOOK_ALIKE
        swapped = bool(rng.uniform() < _SWAPPED)
        votes = [category] * 3
        if swapped or rng.uniform() < 0.2:
            votes[int(rng.integers(3))] = FIGURE + LOOK_ALIKE - category
        points.append(
            DemoPoint(
                float(x[i]),
                float(y[i]),
                category,
                (votes[0], votes[1], votes[2]),
                looks_mitotic=(category == FIGURE) != swapped,
            )
        )
    return tuple(points)


# --- slides --------------------------------------------------------------------------------------


def _write_slides(
    plans: list[SlidePlan], folder: Path, progress: Callable[[int, int], None] | None
) -> None:
    # threads, not processes: a caller's script need not guard its main module, and numpy, Pillow
    # and scipy let go of the interpreter lock for most of the time
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(_write_slide, plan, folder / plan.file_name) for plan in plans]
        try:
            for done, job in enumerate(jobs, start=1):
                job.result()
                if progress is not None:
                    progress(done, len(plans))
        finally:
            pool.shutdown(cancel_futures=True)


def _write_slide(plan: SlidePlan, path: Path) -> None:
    cells = [CellSpec(p.x_l0, p.y_l0, p.looks_mitotic) for p in plan.points]
    picture = draw_slide(np.random.default_rng(plan.seed), plan.domain, plan.size_px, cells)
    write_pyramid(path, picture, plan.domain.mpp)
