"""The verb `add`: annotation files and slides into the store, all checked before anything is written."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore.annotations import (
    AnnotationFile,
    SourceAnnotation,
    SourceSlide,
    read_annotations,
    read_slide_table,
)
from embedstore.errors import EmbedstoreError, SlideError
from embedstore.query import connect, fetch, literal
from embedstore.slides import MPP_MAX, MPP_MIN, Slide, is_plausible_mpp
from embedstore.store import TABLES, Store, model_table, now

MITOTIC, NON_MITOTIC = "mitotic figure", "non-mitotic figure"

KNOWN_CLASSES: dict[str, str] = {
    **dict.fromkeys(
        ("mitotic figure", "mitotic figures", "mitosis", "mitose", "mitoses", "mitotic"), MITOTIC
    ),
    **dict.fromkeys(
        ("non-mitotic figure", "not mitotic figure", "non mitotic figure", "hard negative",
         "hard negative look-alike", "hard negative imposter", "mitotic-like", "mitosis-like",
         "mitotic figure look-alike", "look-alike", "imposter", "non-mitotic"), NON_MITOTIC,
    ),
}  # fmt: skip
"""Class names seen in public files (lower case) and the label each one means."""


@dataclass(frozen=True)
class AddOptions:
    """How a file is read: see `embedstore add --help` for each option."""

    format: str = "auto"
    slides: Path | None = None
    mpp: float | None = None
    slide_table: Path | None = None
    domain: str | None = None
    domain_from: str | None = None
    case_from: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    positive: str | None = None


@dataclass(frozen=True)
class AddReport:
    """What `add` did: counts of this file, what it left out, and what changed in the store."""

    dataset: str
    format: str
    n_annotations: int
    n_new: int
    n_slides: int
    classes: dict[str, str | None]
    n_by_class: dict[str, int]
    notes: list[str]


def add(
    store_uri: str,
    dataset: str,
    annotations: Path,
    options: AddOptions,
    on_slide: Callable[[int, int], None] = lambda done, total: None,
) -> AddReport:
    """Register a file's annotations and slides under `dataset`; adding it again changes nothing.

    on_slide(done, total) is called as slides are opened. Nothing is written unless all is well.
    """
    _check_options(dataset, options)
    content = read_annotations(annotations, options.format)
    table = read_slide_table(options.slide_table) if options.slide_table else {}
    kept, classes, n_by_class = _map_labels(content, options.labels)
    notes = list(content.notes)
    for name, label in classes.items():
        if label is None:
            notes.append(f"{n_by_class[name]} annotations of class '{name}' were left out")
    attributes = {s: {**v.attributes, **_row_of(table, s)} for s, v in content.slides.items()}
    used = {a.slide for a, _ in kept}
    rows = _annotation_rows(dataset, kept, attributes, content, options, notes)
    case_source = options.case_from or content.case_key
    cases = {r["slide"]: r["case_id"] for r in rows}
    slides = []
    for n, slide in enumerate(s for s in content.slides.values() if s.slide in used):
        on_slide(n, len(used))
        slides.append(_slide_row(dataset, slide, attributes[slide.slide], options, content))
        slides[-1] |= {"case_id": cases[slide.slide], "case_source": case_source or "slide"}
    on_slide(len(used), len(used))
    store = Store.open(store_uri, create=True)
    n_new = _write(store, dataset, annotations, options, rows, slides, classes, notes)
    return AddReport(
        dataset, content.format, len(rows), n_new, len(slides), classes, n_by_class, notes
    )


def _check_options(dataset: str, options: AddOptions) -> None:
    if not dataset or "/" in dataset or dataset != dataset.strip():
        raise EmbedstoreError(f"'{dataset}' cannot name a dataset: give a word without a slash")
    if options.mpp is not None and not is_plausible_mpp(options.mpp):
        raise EmbedstoreError(
            f"--mpp {options.mpp:g} is not between {MPP_MIN} and {MPP_MAX} um/px; "
            "give micrometres per pixel of level 0 (0.25 for a x40 scan)"
        )
    if options.domain and options.domain_from:
        raise EmbedstoreError("give --domain NAME or --domain-from COLUMN, not both")
    if options.slides is not None and not options.slides.is_dir():
        raise EmbedstoreError(f"no folder of slides at {options.slides}")


def _map_labels(
    content: AnnotationFile, labels: Mapping[str, str]
) -> tuple[list[tuple[SourceAnnotation, str]], dict[str, str | None], dict[str, int]]:
    """Return the annotations with a label, the label of each class (None: left out), and counts."""
    n_by_class = dict(Counter(a.category for a in content.annotations).most_common())
    if unknown := [c for c in labels if c not in n_by_class]:
        raise EmbedstoreError(
            f"--label names class {', '.join(map(repr, unknown))}, but {content.path} has: "
            f"{', '.join(map(repr, n_by_class))}"
        )
    classes = {c: labels.get(c) or KNOWN_CLASSES.get(c.strip().lower()) for c in n_by_class}
    if not any(classes.values()):
        example = " ".join(f"--label '{c}={c}'" for c in list(n_by_class)[:2])
        raise EmbedstoreError(
            f"no class of {content.path} is known: {', '.join(map(repr, n_by_class))}; say what "
            f"each means with --label 'CLASS=LABEL', for example: {example}"
        )
    kept = [(a, label) for a in content.annotations if (label := classes[a.category])]
    return kept, classes, n_by_class


def _row_of(table: Mapping[str, Mapping[str, str]], slide: str) -> Mapping[str, str]:
    return table.get(slide) or table.get(Path(slide).stem) or {}


def _annotation_rows(
    dataset: str,
    kept: Iterable[tuple[SourceAnnotation, str]],
    slides: Mapping[str, Mapping[str, str]],
    content: AnnotationFile,
    options: AddOptions,
    notes: list[str],
) -> list[dict[str, Any]]:
    domain_key = None if options.domain else options.domain_from or content.domain_key
    case_key = options.case_from or content.case_key
    rows = []
    for a, label in kept:
        known = {**a.attributes, **slides[a.slide]} if a.attributes else slides[a.slide]
        for key, option in ((domain_key, "--domain-from"), (case_key, "--case-from")):
            if key is not None and not known.get(key):
                raise EmbedstoreError(
                    f"slide {a.slide} has no '{key}' ({option}); it has: {', '.join(sorted(known))}"
                )
        rows.append({
            "annotation_id": f"{dataset}/{a.slide}/{a.source_id}", "dataset": dataset,
            "slide": a.slide, "case_id": known[case_key] if case_key else a.slide,
            "domain": known[domain_key] if domain_key else options.domain or dataset,
            "label": label, "x_l0": float(a.x_l0), "y_l0": float(a.y_l0),
            "source_id": a.source_id, "category": a.category, "votes": list(a.votes),
        })  # fmt: skip
    if domain_key is None and options.domain is None:
        notes.append(f"the file names no domain: all are domain '{dataset}' (--domain-from, --domain)")
    if case_key is None:
        notes.append("the file names no case: every slide counts as its own (--case-from)")
    _check_unique(rows, content.path)
    return rows


def _check_unique(rows: list[dict[str, Any]], path: Path) -> None:
    doubles = [k for k, n in Counter(r["annotation_id"] for r in rows).items() if n > 1]
    if doubles:
        raise EmbedstoreError(
            f"{path} has {len(doubles)} annotation ids more than once, for example {doubles[0]}"
        )
    # Splits group by case: one slide cannot belong to two.
    case_of: dict[str, str] = {}
    for r in rows:
        if case_of.setdefault(r["slide"], r["case_id"]) != r["case_id"]:
            raise EmbedstoreError(
                f"{path} puts slide {r['slide']} in case '{case_of[r['slide']]}' and in "
                f"'{r['case_id']}'; a slide has one case"
            )


def _slide_row(
    dataset: str,
    slide: SourceSlide,
    attributes: Mapping[str, str],
    options: AddOptions,
    content: AnnotationFile,
) -> dict[str, Any]:
    table_mpp = _table_mpp(slide.slide, attributes)
    path = _find_slide(slide.slide, attributes.get("path"), options.slides, content.path.parent)
    row = {
        "slide_id": f"{dataset}/{slide.slide}", "dataset": dataset, "slide": slide.slide,
        "path": str(path) if path else None, "width": slide.width, "height": slide.height,
        "scanner": attributes.get("scanner") or attributes.get("Scanner"),
        "attributes": json.dumps(dict(sorted(attributes.items())), ensure_ascii=False),
    }  # fmt: skip
    fallback = (options.mpp, "option") if options.mpp else (table_mpp, "slide table")
    return row | probe(path, fallback if fallback[0] else (None, None))


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


def _find_slide(name: str, stated: str | None, folder: Path | None, beside: Path) -> Path | None:
    places = [folder / (stated or name), folder / name] if folder else []
    if stated:
        places += [Path(stated), beside / stated]
    return next((p.resolve() for p in places if p.is_file()), None)


def probe(path: Path | None, fallback: tuple[float | None, str | None]) -> dict[str, Any]:
    """Return the slide columns that opening the file decides: size, mpp, status and problem.

    fallback is (mpp, its source), used where the file states no plausible mpp. status is ok,
    missing (no file yet), unreadable or no-mpp.
    """
    if path is None or not path.is_file():
        mpp, source = fallback
        return {"mpp": mpp, "mpp_source": source, "status": "missing", "problem": "no slide file"}
    try:
        with Slide(path) as slide:
            size = {"width": slide.width, "height": slide.height}
            stated, doubt = slide.mpp, slide.mpp_problem
    except SlideError as e:
        return {"mpp": None, "mpp_source": None, "status": "unreadable", "problem": str(e)}
    mpp, source = (stated, "slide") if stated else fallback
    if mpp is None:
        why = doubt or "the file states no mpp"
        problem = f"{why}: add again with --mpp X, or with a --slide-table that has a column mpp"
        return size | {"mpp": None, "mpp_source": None, "status": "no-mpp", "problem": problem}
    return size | {"mpp": mpp, "mpp_source": source, "status": "ok", "problem": doubt}


def _write(
    store: Store,
    dataset: str,
    source: Path,
    options: AddOptions,
    rows: list[dict[str, Any]],
    slides: list[dict[str, Any]],
    classes: Mapping[str, str | None],
    notes: list[str],
) -> int:
    con = connect(store)
    old = fetch(con, f"select * from _datasets where dataset = {literal(dataset)}").to_pylist()
    ids = f"select annotation_id, slide, label, domain, x_l0, y_l0 from _annotations " \
          f"where dataset = {literal(dataset)}"  # fmt: skip
    before = {r["annotation_id"]: r for r in fetch(con, ids).to_pylist()}
    labels = {r["label"] for r in (*rows, *before.values())}
    positive = _choose_positive(options.positive, old[0]["positive_label"] if old else None, labels)
    _keep_known_paths(con, dataset, slides, options)
    sources = (old[0]["source"].split(", ") if old else []) + [source.name]
    store.merge("slides", slides)
    # Before the annotations change: killed in between, the next add sees the difference again.
    _refresh_embeddings(store, rows, before, notes)
    n_new = store.merge("annotations", rows)
    entry = {
        "dataset": dataset, "positive_label": positive, "source": ", ".join(dict.fromkeys(sources)),
        "mpp": options.mpp or (old[0]["mpp"] if old else None),
        "classes": json.dumps(dict(classes), ensure_ascii=False), "notes": notes,
        "created_at": old[0]["created_at"] if old else now(),
    }  # fmt: skip
    store.merge("datasets", [entry])
    return n_new


def _choose_positive(asked: str | None, recorded: str | None, labels: set[str]) -> str | None:
    if asked is not None and asked not in labels:
        raise EmbedstoreError(
            f"--positive '{asked}' is no label here; labels: {', '.join(sorted(labels))}"
        )
    positive = asked or recorded or (MITOTIC if MITOTIC in labels else None)
    if positive is None and len(labels) == 2:
        first, second = sorted(labels)
        raise EmbedstoreError(
            f"which of the two labels is the positive one? Say --positive '{first}' or "
            f"--positive '{second}'"
        )
    return positive


def _keep_known_paths(con: Any, dataset: str, slides: list[dict[str, Any]], options: AddOptions) -> None:
    """Keep what an earlier add learnt of slides that this one was not told where to find."""
    sql = f"select * from _slides where dataset = {literal(dataset)} and path is not null"
    known = {r["slide"]: r for r in fetch(con, sql).to_pylist()}
    for row in slides:
        if row["path"] is None and (old := known.get(row["slide"])):
            given = (row["mpp"], row["mpp_source"]) if row["mpp"] else (
                (old["mpp"], old["mpp_source"]) if old["mpp_source"] != "slide" else (None, None))  # fmt: skip
            row["path"] = old["path"]
            row |= probe(Path(old["path"]), given)


def _refresh_embeddings(
    store: Store, rows: list[dict[str, Any]], before: Mapping[str, Mapping[str, Any]], notes: list[str]
) -> None:
    """Follow changes of annotations in the models' tables: keys are rewritten, moved ones dropped."""
    changed = [(r, before[r["annotation_id"]]) for r in rows if r["annotation_id"] in before]
    moved = [r["annotation_id"] for r, b in changed if (r["x_l0"], r["y_l0"]) != (b["x_l0"], b["y_l0"])]
    renamed = [r for r, b in changed if (r["label"], r["domain"]) != (b["label"], b["domain"])]
    keys = ["annotation_id", "domain", "label"]
    schema = pa.schema([TABLES["annotations"].field(k) for k in keys])
    for model in store.models():
        if moved:
            store.delete(model_table(model), "annotation_id", moved)
        if renamed:
            update = [{k: r[k] for k in keys} for r in renamed]
            store.update_columns(model_table(model), pa.Table.from_pylist(update, schema=schema))
    if moved:
        notes.append(f"{len(moved)} annotations moved: their embeddings were dropped, ingest again")
    if renamed:
        notes.append(f"{len(renamed)} annotations changed label or domain")
