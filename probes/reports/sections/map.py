"""A map of each model's embeddings: two principal components of some annotations, with patches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.reading.images import SHEET, THUMB_PX, sheet
from embedstore.reading.pixels import Patches
from embedstore.reading.projection import principal_components
from embedstore.store.layout import model_table
from embedstore.store.sql import fetch_rows, literal, stale
from probes.reports.blocks import Block, Figure, Missing, Points, Section, Widget
from probes.reports.data import Facts
from probes.reports.makers import Maker, Material
from probes.reports.repeat import command

N_POINTS = 1200
"""Annotations of a dataset on its maps, the same for all models."""


def embedding_map(material: Material) -> Section:
    """Return the section with a map per dataset, choosable by model and colour."""
    facts = material.facts
    blocks: list[Block] = []
    for n, d in enumerate(facts.datasets, start=1):
        blocks += _of_dataset(facts, d.dataset, n)
    return Section("map", "A map of the embeddings", blocks)


def _of_dataset(facts: Facts, dataset: str, number: int) -> list[Block]:
    drawn = _draw(facts, dataset)
    placed = {m: points for m in facts.models if (points := _place(facts, m, drawn)) is not None}
    if not placed:
        return [
            Missing(
                f"{dataset} has no embeddings.",
                command("embedstore", "ingest", dataset, "--model", "MODEL"),
            )
        ]
    labels = sorted({r["label"] for r in drawn})
    domains = sorted({r["domain"] for r in drawn})
    kept = Patches(facts.store, facts.con, dataset)
    pixels = kept.read((r["annotation_id"] for r in drawn), THUMB_PX)
    text = (
        f"The first two principal components of {len(drawn):,} annotations, drawn by a hash of "
        "their ids and the same for all models. Hover (or tap) a point for its patch."
        + ("" if pixels else " No patch is kept in this store, so points show their names alone.")
    )
    data: dict[str, Any] = {
        "ids": [r["annotation_id"] for r in drawn],
        "label": [labels.index(r["label"]) for r in drawn],
        "labels": labels,
        "domain": [domains.index(r["domain"]) for r in drawn],
        "domains": domains,
        "models": [
            {"name": m, "shares": shares, "xy": _packed(points)}
            for m, (points, shares) in placed.items()
        ],
        "sheet": sheet([pixels.get(r["annotation_id"]) for r in drawn]) if pixels else "",
        "has": [int(r["annotation_id"] in pixels) for r in drawn],
        "columns": SHEET,
        "thumb": THUMB_PX,
    }
    title = f"{dataset}: map of the embeddings"
    panels = [
        Points(f"{m}, by {what}", points[:, 0].tolist(), points[:, 1].tolist(), classes, data[what])
        for m, (points, _) in placed.items()
        for what, classes in (("label", labels), ("domain", domains))
    ]
    return [
        Widget("map", title, text, data),
        Figure(f"map-{number}", title, text, panels, on_page=False),
    ]


def _draw(facts: Facts, dataset: str) -> list[dict[str, Any]]:
    """Return up to N_POINTS usable annotations, by the order of a hash of their ids."""
    return fetch_rows(
        facts.con,
        "select annotation_id, label, domain from annotations where dataset = "
        f"{literal(dataset)} and status = 'ok' order by md5(annotation_id) limit {N_POINTS}",
    )


def _place(
    facts: Facts, model: str, drawn: Sequence[dict[str, Any]]
) -> tuple[NDArray[np.float64], list[float]] | None:
    """Return where each annotation lies, float64 (n, 2) in -1..1, and its axes' shares of variance.

    NaN where the model has not embedded it; None where it has embedded fewer than three of them.
    """
    if model not in facts.store.models():
        return None
    lance = facts.store.lance(model_table(model))
    ids = lance.to_table(columns=["annotation_id"])["annotation_id"].to_pylist()
    of_old = set(stale(facts.con, model))
    place = {i: k for k, i in enumerate(ids) if i not in of_old}
    embedded = [k for k, r in enumerate(drawn) if r["annotation_id"] in place]
    if len(embedded) < 3:
        return None
    table = lance.take([place[drawn[k]["annotation_id"]] for k in embedded], columns=["vector"])
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    points = np.full((len(drawn), 2), np.nan)
    points[embedded], shares = components(flat.reshape(len(embedded), -1).astype(np.float64))
    return points, shares


def components(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[float]]:
    """Return two principal components (n, 2) scaled to -1..1, and their shares of the variance.

    x is (n, dim), n at least 3. Signs are such that the same vectors always give the same map.
    """
    places, shares = principal_components(x)
    points = places.astype(np.float64)
    for k in (0, 1):
        most = points[np.argmax(np.abs(points[:, k])), k]
        points[:, k] *= (1.0 if most >= 0 else -1.0) / (abs(most) or 1.0)
    return points, list(shares)


def _packed(points: NDArray[np.float64]) -> list[int | None]:
    """Return x and y in turn, in thousandths; None where there is none."""
    return [None if np.isnan(v) else round(v * 1000) for v in points.ravel().tolist()]


SECTION = Maker(60, embedding_map)
