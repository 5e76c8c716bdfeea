"""The annotations that a manifest is cut from, with what the audit needs of each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.records import shared
from embedstore.store.sql import (
    check_dataset,
    connect,
    embedded_models,
    fetch,
    fetch_rows,
    literal,
    where_clause,
)
from probes.splits.audit import PATCH_UM
from probes.splits.draw import Pool, manifest_digest
from probes.splits.schemes import SCHEMES
from probes.splits.spec import ManifestSpec


@dataclass(frozen=True)
class Candidates:
    """The annotations of a manifest and what the audit needs of each, in order of the pool.

    images: the file that each lies on; slides and cases: those it comes from, None where a patch's
    are not named; centres_um (n, 2), NaN for patches; patch_um: how wide a field is embedded.
    """

    manifest_id: str
    spec: ManifestSpec
    pool: Pool
    images: list[str]
    slides: list[str | None]
    cases: list[str | None]
    centres_um: NDArray[np.float64]
    places: list[str]
    n_left_out: int
    notes: list[str]
    patch_um: float = PATCH_UM


def candidates(store: Store, spec: ManifestSpec) -> Candidates:
    """Return what `spec` selects; EmbedstoreError where that is nothing or the dataset unknown."""
    spec.check()
    spec = replace(spec, where=spec.where.strip() or None if spec.where else None)
    con = connect(store)
    check_dataset(store, con, spec.dataset)
    column = _selected(con, spec)
    notes = []
    if SCHEMES[spec.scheme].is_given:
        kept = [i for i, split in enumerate(column["split"]) if split is not None]
        if not kept:
            raise EmbedstoreError(
                f"no annotation of '{spec.dataset}'{cut_by(spec)} is in a split: add a file with "
                "a column split (train, val or test), or use --scheme monte-carlo"
            )
        if n_unsplit := len(column["split"]) - len(kept):
            notes.append(f"{n_unsplit} annotations that the dataset puts in no split are left out")
        column = {k: [v[i] for i in kept] for k, v in column.items()}
    ids, images, cases = column["annotation_id"], column["slide"], column["case_id"]
    slides: list[str | None] = column["source_slide"]
    # What is not named is alone: a patch counts as a slide, and as a case, of its own.
    alone = [s or image for s, image in zip(slides, images, strict=True)]
    groups = {"annotation": ids, "slide": alone, "case": cases}[spec.group_by]
    # Only where it decides the roles is the dataset's split a part of what the digest covers.
    splits = column["split"] if SCHEMES[spec.scheme].is_given else None
    pool = Pool(ids, column["label"], column["domain"], groups, splits)
    is_patch = np.array([k == "patch" for k in column["kind"]], dtype=bool)
    counts = fetch_rows(
        con,
        "select count(*) filter (status != 'ok') as aside, count(*) as n, "
        "count(*) filter (case_id = coalesce(source_slide, slide)) as alone "
        f"from annotations where dataset = {literal(spec.dataset)}",
    )[0]
    if spec.group_by == "case" and counts["alone"] == counts["n"]:
        notes.append("no case is recorded, so every slide counts as its own case")
    if n_alone := slides.count(None) * (spec.group_by == "slide"):
        notes.append(
            f"{n_alone} patches whose slide is not named count as slides of their own; what they "
            "share, a column slide or a case can tell"
        )
    x, y = (np.array(column[k], dtype=np.float64) for k in ("x_l0", "y_l0"))
    centres = np.column_stack((x, y)) * np.array(column["mpp"])[:, None]
    centres[is_patch] = np.nan
    # A patch has no place but its file's middle, known or not yet.
    places = [
        "patch" if of_patch else f"{at_x!r},{at_y!r}"
        for of_patch, at_x, at_y in zip(is_patch, column["x_l0"], column["y_l0"], strict=True)
    ]
    known = [
        None if s is None and case == image else case
        for s, case, image in zip(slides, cases, images, strict=True)
    ]
    parameters = {k: v for k, v in vars(spec).items() if k != "dataset"}
    digest = manifest_digest(pool, places, **parameters)
    n_aside, field_um = counts["aside"], _field_um(con, spec.dataset)
    return Candidates(
        digest, spec, pool, images, slides, known, centres, places, n_aside, notes, field_um
    )


def _field_um(con: Any, dataset: str) -> float:
    """Return the width in um of the widest field that a model of a dataset was given.

    PATCH_UM where none is known: nothing is embedded yet, or only imported.
    """
    models = ", ".join(map(literal, embedded_models(con, dataset))) or "''"
    sql = f"select max(patch_px * mpp_out) as um from models where model in ({models})"
    return float(fetch_rows(con, sql)[0]["um"] or PATCH_UM)


def only(manifest: Candidates, members: Sequence[int]) -> Candidates:
    """Return the candidates at some positions of the pool, in that order, under the same id."""

    def at(values: Sequence[Any]) -> list[Any]:
        return [values[i] for i in members]

    pool = manifest.pool
    return replace(
        manifest,
        pool=Pool(*map(at, (pool.ids, pool.labels, pool.domains, pool.groups))),
        images=at(manifest.images),
        slides=at(manifest.slides),
        cases=at(manifest.cases),
        centres_um=manifest.centres_um[list(members)],
        places=at(manifest.places),
    )


def _selected(con: Any, spec: ManifestSpec) -> dict[str, list[Any]]:
    """Return the columns of the usable annotations that a spec selects, sorted by id."""
    # A sub-select, so that no condition can reach beyond this dataset's usable annotations.
    selected = (
        f"from (select * from annotations where dataset = {literal(spec.dataset)} and "
        f"status = 'ok') where {where_clause(spec.where)} order by annotation_id"
    )
    columns = (
        "annotation_id, label, domain, slide, source_slide, case_id, x_l0, y_l0, "
        "coalesce(mpp, 0.25) as mpp, kind, split"
    )
    table = fetch(con, f"select {columns} {selected}")
    again = fetch(con, f"select annotation_id {selected}")["annotation_id"].to_pylist()
    # Equal texts are one object: at 10^7 annotations each would take more than its vector else.
    rows = {
        k: table[k].to_pylist() if k in ("annotation_id", "x_l0", "y_l0") else shared(table[k])
        for k in table.column_names
    }
    if sorted(again) != sorted(rows["annotation_id"]):
        raise EmbedstoreError(
            f"--where {spec.where} selects other annotations each time it is asked; use a "
            "condition on what is stored"
        )
    if not again:
        raise EmbedstoreError(f"dataset '{spec.dataset}' has no usable annotations{cut_by(spec)}")
    # DuckDB and Python must agree on what "sorted" means, so sort here, by code point.
    order = sorted(range(len(again)), key=rows["annotation_id"].__getitem__)
    return {k: [v[i] for i in order] for k, v in rows.items()}


def cut_by(spec: ManifestSpec) -> str:
    """Return the condition of a spec in words, for messages; "" where it has none."""
    return f" that meet --where {spec.where}" if spec.where else ""
