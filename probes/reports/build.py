"""The verb `report`: figures, tables and a page of what is recorded; nothing is fitted here."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedstore.errors import EmbedstoreError
from embedstore.files.output import to_json, write_whole
from embedstore.store import Store
from probes.reports.blocks import Figure, Page, Section, TableBlock, styles
from probes.reports.data import Facts, gather
from probes.reports.leaderboard import LEADERBOARD, leaderboard
from probes.reports.makers import Material, makers
from probes.reports.page import render
from probes.reports.plots import files_of
from probes.reports.predictions import scores_of
from probes.reports.tables import to_csv, to_latex, to_markdown

INDEX, ABOUT = "index.html", "embedstore-report.txt"
"""The page, and what is written before all else: that the folder is a report's."""

FORMS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def report(
    store: Store,
    datasets: Sequence[str],
    output: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Write the page, its figures and tables into a folder; return a row per file.

    A row has file, kind and title, the page's comes first. No dataset named means all.
    Everything is asked of the store. Files of the same names are replaced, each whole;
    others are left alone. EmbedstoreError where a dataset is not there or the folder cannot be
    written.
    """
    if output.exists() and not output.is_dir():
        raise EmbedstoreError(f"{output} is a file; --output names a folder")
    n_steps = len(makers()) + 1  # and the writing
    facts = gather(store, datasets)
    page = build(facts, lambda done: on_progress(done, n_steps))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise EmbedstoreError(f"{output} cannot be made: {e.strerror or e}") from e
    written: list[dict[str, Any]] = []

    def put(name: str, content: bytes, kind: str, title: str) -> None:
        write_whole(output / name, lambda sink: sink.write(content))
        written.append({"file": str(output / name), "kind": kind, "title": title})

    about = f"Written by `probes report`, which may replace what is here. The page is {INDEX}.\n"
    put(ABOUT, about.encode(), "about", "What wrote the folder")
    for block in (b for s in page.sections for b in s.blocks):
        if isinstance(block, Figure):
            for ending, content in files_of(block).items():
                put(f"{block.name}.{ending}", content, "figure", block.title)
        elif isinstance(block, TableBlock):
            for ending, form in FORMS.items():
                put(
                    f"{block.table.name}.{ending}",
                    form(block.table).encode(),
                    "table",
                    block.table.title,
                )
    rows = leaderboard(facts)
    put(LEADERBOARD, to_json(rows).encode(), "leaderboard", "One row a model and split")
    # The page comes last: what it links to is there.
    put(INDEX, render(page).encode(), "page", page.title)
    on_progress(n_steps, n_steps)
    return [written[-1], *written[:-1]]


def build(facts: Facts, on_step: Callable[[int], None] = lambda done: None) -> Page:
    """Return the page of these facts."""
    material = Material(facts, scores_of(facts), styles(facts))
    sections = []
    for n, maker in enumerate(makers()):
        section = maker.make(material)
        sections.append(section if len(facts.datasets) > 1 else _of_one(section))
        on_step(n + 1)
    return Page(
        _title(facts),
        _subtitle(facts),
        _warnings(facts),
        _numbers(facts),
        sections,
        [
            "Every number on this page is a query over the store; intervals were "
            "computed when a run was recorded. Nothing here was fitted or computed anew.",
        ],
    )


def _of_one(section: Section) -> Section:
    """Return a section whose tables do not show the name of the one dataset; CSV files do."""
    blocks = [
        replace(
            b, table=replace(b.table, columns=[c for c in b.table.columns if c.key != "dataset"])
        )
        if isinstance(b, TableBlock)
        else b
        for b in section.blocks
    ]
    return replace(section, blocks=blocks)


def _title(facts: Facts) -> str:
    names = [d.dataset for d in facts.datasets]
    said = ", ".join(names) if len(names) <= 4 else f"{len(names)} datasets"
    return f"How good are these models on {said}?"


def _subtitle(facts: Facts) -> str:
    methods = sorted({e.method for e in facts.sides if not e.is_e2e})
    trained = any(e.is_e2e for e in facts.sides)
    parts = [f"Probes ({', '.join(methods)}) on frozen embeddings"] if methods else []
    parts += ["networks trained end to end"] if trained else []
    return (" and ".join(parts) or "Nothing is recorded yet") + (
        ", on the same split manifests." if len(parts) > 1 else "."
    )


def _warnings(facts: Facts) -> list[str]:
    demo = [d.dataset for d in facts.datasets if facts.is_demo(d.dataset)]
    chance = sorted({e.model for e in facts.sides if e.is_random})
    said = (
        [
            f"Demonstration data: {', '.join(demo)} is generated, not tissue. Its numbers "
            "show that the parts work and say nothing of tissue."
        ]
        if demo
        else []
    )
    return said + (
        [f"Random weights: {', '.join(chance)}: nothing of it is pretrained."] if chance else []
    )


def _numbers(facts: Facts) -> list[tuple[str, str]]:
    n = sum(d.n_annotations for d in facts.datasets)
    models = {e.model for e in facts.sides}
    runs = {r.run_id for r in facts.results}
    return [
        ("annotations", f"{n:,}"),
        ("domains", f"{sum(map(len, facts.domains.values())):,}"),
        ("models", f"{len(models):,}"),
        ("runs", f"{len(runs):,}"),
        ("made", datetime.now(UTC).strftime("%Y-%m-%d")),
    ]
