"""Vectors from anywhere and a table of labels: how good they are, honestly, without a slide."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedstore.add import AddOptions
from embedstore.add.register import add_content
from embedstore.annotations.columns import NOTHING, Declared, Table, read_table, roles
from embedstore.annotations.labels import KNOWN_CLASSES
from embedstore.annotations.source import AnnotationFile
from embedstore.embeddings.identity import check_model_name
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.exchange.checks import ANOTHER, some
from embedstore.exchange.incoming import import_vectors
from embedstore.exchange.loose import LooseVectors, read_loose
from embedstore.exchange.pairing import (
    Pairing,
    cells_of,
    own_rows,
    pair,
    vector_file,
)
from embedstore.store import Store
from embedstore.store.records import OF_VECTOR
from embedstore.store.sql import connect, fetch_rows
from probes.splits.draw import GROUPINGS
from probes.studies.gap import ANNOTATION, CASE, SLIDE, gap, there
from probes.studies.measures import Measure

HARDEST: Sequence[str] = (CASE, SLIDE, ANNOTATION)
"""What a model is judged by where nothing is asked for: the first that the labels allow."""
WORDS = {ANNOTATION: "random cells", SLIDE: "slides not seen", CASE: "cases not seen"}


@dataclass(frozen=True)
class OwnOptions:
    """What is said of vectors and labels: see `probes evaluate --help`."""

    dataset: str | None = None
    model: str | None = None
    group_by: str | None = None
    method: str = "uni"
    id: str | None = None
    in_order: bool = False
    vectors_from: str | None = None
    declared: Declared = NOTHING
    labels: Mapping[str, str] = field(default_factory=dict)
    positive: str | None = None


@dataclass(frozen=True)
class OwnReport:
    """What came of it: names in the store, measures of `gap`, the answer in words, and notes."""

    dataset: str
    model: str
    group_by: str
    measures: Sequence[Measure]
    answers: Sequence[str]
    notes: Sequence[str]


def read_vectors(file: Path, options: OwnOptions) -> LooseVectors:
    """Return the vectors of a file."""
    return read_loose(file, options.vectors_from)


def read_labels(file: Path, options: OwnOptions) -> Table:
    """Return the table of labels of a file."""
    if not file.is_file():
        raise EmbedstoreError(f"no table of labels at {file}")
    return read_table(file, options.declared)


def table_of(path: Path, texts: Mapping[str, Sequence[str]], declared: Declared) -> Table:
    """Return columns of text as a table; path is what it came from."""
    columns = list(texts)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*texts.values(), strict=True)]
    return Table(path, columns, rows, roles(path, columns, declared), declared)


def evaluate_own(
    store_uri: str,
    loose: LooseVectors,
    table: Table | None,
    options: OwnOptions,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> OwnReport:
    """Store cells and vectors, fit and score probes on splits by cell, slide, case and domain.

    table: the cells' labels; None: they stand beside the vectors.
    What is there is left alone: done again, nothing is stored or fitted twice, and another file of
    vectors of the same cells is compared with what is there. Nothing is written unless all is well.
    """
    if options.group_by is not None and options.group_by not in GROUPINGS:
        raise UsageError(f"unknown --group-by; allowed: {', '.join(GROUPINGS)}")
    model = options.model or loose.name.rsplit(".", 1)[0]
    if table is None:
        table = table_of(Path(loose.name), loose.texts, options.declared)
        paired = own_rows(loose, table, options.id)
    else:
        paired = pair(loose, table, options.id, in_order=options.in_order)
    name = options.dataset or table.path.name.split(".")[0]
    content = cells_of(table, paired)
    _check_group(options.group_by, content)
    _check_vectors(loose, paired)
    check_model_name(model, other=ANOTHER)
    if Store.is_taken(store_uri):
        _check_dataset(Store.open(store_uri), name, content)
    labels, notes_on_labels = _labels(options, content)
    how = AddOptions(labels=labels, positive=options.positive, declared=options.declared)
    added = add_content(store_uri, name, content, how)
    opened = Store.open(store_uri, write=True)
    id_of = {r["slide"]: r["annotation_id"] for r in added.annotations}
    kept = [k for k, cell in enumerate(paired.ids) if cell in id_of]
    cells = [paired.ids[k] for k in kept]
    mine = Pairing(cells, paired.of_vectors[kept], paired.of_table[kept], [])
    ids = [id_of[cell] for cell in mine.ids]
    brought = import_vectors(
        opened, name, model, Path(loose.name), lambda annotations: vector_file(loose, mine, ids)
    )
    levels, _ = there(opened, name)
    group_by: str = options.group_by or next(g for g in HARDEST if g in levels)
    measures, notes = gap(opened, name, method=options.method, on_progress=on_progress)
    said = [
        *_without_slides(added.notes),
        *notes_on_labels,
        *brought.notes,
        *(f"left out {n}" for n in notes),
    ]
    said += _not_fitted(opened, name, options.method)
    return OwnReport(name, model, group_by, measures, answers(measures, group_by), said)


def _labels(options: OwnOptions, content: AnnotationFile) -> tuple[Mapping[str, str], list[str]]:
    """Return what classes mean, and a note: names that are not known are labels as they are.

    Not so codes, unless --positive names one: which of 0 and 1 is what is never guessed.
    """
    classes = {a.category for a in content.annotations}
    are_codes = all(re.fullmatch(r"[\d.+-]+|true|false", c.strip(), re.I) for c in classes)
    # Known ones alone are taken where they are enough to tell apart; beside one label, any other
    # class is what it is told from.
    known = {KNOWN_CLASSES.get(c.strip().lower()) for c in classes} - {None}
    if options.labels or len(known) > 1 or (are_codes and options.positive not in classes):
        return options.labels, []
    named = {c: KNOWN_CLASSES.get(c.strip().lower(), c) for c in classes}
    return named, ["the labels are taken as they are"]


def _check_group(group_by: str | None, content: AnnotationFile) -> None:
    """Raise EmbedstoreError where the labels do not name what splits are to keep on one side."""
    if group_by is None or group_by == ANNOTATION:
        return
    key = content.case_key if group_by == CASE else SLIDE
    named = {s.attributes.get(key or "") for s in content.slides.values()}
    if group_by == CASE and content.case_key == SLIDE:
        named = set()  # a slide that stands in for its case is no case
    if len(named - {None}) < 2:
        raise EmbedstoreError(
            f"--group-by {group_by}: the labels name no {group_by}, or one alone; say which column "
            f"it is with --column {group_by}=NAME"
        )


def _check_vectors(loose: LooseVectors, paired: Pairing) -> None:
    """Raise EmbedstoreError for vectors that cannot be stored, before anything is written."""
    if loose.vectors.ndim != 2 or not loose.vectors.shape[1]:
        raise EmbedstoreError(f"{loose.name}: vectors of shape {loose.vectors.shape}")
    faults = vector_file(loose, paired, paired.ids).faults
    if faults:
        told = "".join(f"\n- {len(of):,} {what}: {some(of)}" for what, of in faults.items())
        raise EmbedstoreError(f"{loose.name} was not taken, nothing is written:{told}")


def _check_dataset(store: Store, dataset: str, content: AnnotationFile) -> None:
    """Raise EmbedstoreError where a dataset of that name has none of these cells."""
    rows = fetch_rows(
        connect(store),
        "select slide, source_id from annotations where dataset = $dataset",
        {"dataset": dataset},
    )
    mine = {r["slide"] for r in rows if r["source_id"] == OF_VECTOR}
    if rows and not mine & set(content.slides):
        raise EmbedstoreError(
            f"dataset '{dataset}' of {store.uri} has other cells; say --dataset NAME for these"
        )


def _without_slides(notes: Sequence[str]) -> list[str]:
    """Return what `add` noted but for what concerns images, which there are none of."""
    return [n for n in notes if not n.startswith("the file names no domain")]


def _not_fitted(store: Store, dataset: str, method: str) -> list[str]:
    """Return whose probes learnt nothing, or did not end: what they score is no answer."""
    rows = fetch_rows(
        connect(store),
        "select model, count(distinct run_id) as runs, count(distinct run_id) filter (state = "
        "'collapsed') as collapsed, count(distinct run_id) filter (state = 'not converged') as "
        "unended from results where dataset = $dataset and method = $method and eval_dataset is "
        "null and fraction = 1 group by 1 order by 1",
        {"dataset": dataset, "method": method},
    )
    other = next(m for m in ("logreg", "uni") if m != method)
    said = [
        f"{r['model']}: {r['collapsed']} of {r['runs']} probes learnt nothing, the penalty of "
        f"{method} outweighs these vectors; --method {other} may learn from them"
        for r in rows
        if r["collapsed"]
    ]
    return said + [
        f"{r['model']}: {r['unended']} of {r['runs']} probes did not converge"
        for r in rows
        if r["unended"]
    ]


def answers(measures: Sequence[Measure], group_by: str) -> list[str]:
    """Return a sentence per model: its AUROC on unseen groups, and by random cells."""
    of: dict[tuple[str | None, str | None], Measure] = {
        (m.model, m.split): m for m in measures if m.metric == "auroc" and m.against is None
    }
    said = []
    for model in dict.fromkeys(m.model for m in measures if m.metric == "auroc"):
        at = of.get((model, group_by))
        if at is None or at.value is None:
            said.append(f"{model}: no AUROC on {WORDS[group_by]} could be computed")
            continue
        text = f"{model}: AUROC {at.value:.3f}{_interval(at)} on {WORDS[group_by]}"
        loose = of.get((model, ANNOTATION))
        if group_by != ANNOTATION and loose is not None and loose.value is not None:
            text += f"; random cells would have shown {loose.value:.3f}"
        said.append(text)
    return said


def _interval(m: Measure) -> str:
    if m.ci_low is None or m.ci_high is None:
        return " (no interval: its test sets do not vary, or have too few groups)"
    groups = f"{m.n_groups} {m.ci_by}s" if m.n_groups and m.ci_by else "no groups"
    return f" (95% interval {m.ci_low:.3f} to {m.ci_high:.3f}, {groups})"
