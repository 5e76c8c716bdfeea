"""The verb `add`: annotations and slides into the store, all checked before any is written."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedstore.annotations import (
    AnnotationFile,
    SourceAnnotation,
    SourceSlide,
    read_annotations,
)
from embedstore.changes import Before, follow_changes
from embedstore.errors import EmbedstoreError
from embedstore.labels import choose_positive, map_labels
from embedstore.slides import MPP_MAX, MPP_MIN, is_plausible_mpp, probe
from embedstore.store import Store, now
from embedstore.tables import read_slide_table


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
    there = Store.open(store_uri) if Store.exists(store_uri) else None
    content = read_annotations(annotations, options.format)
    table = read_slide_table(options.slide_table) if options.slide_table else {}
    kept, classes, n_by_class = map_labels(content, options.labels)
    notes = list(content.notes)
    for name, label in classes.items():
        if label is None:
            notes.append(f"{n_by_class[name]} annotations of class '{name}' were left out")
    attributes = {s: {**v.attributes, **_row_of(table, s)} for s, v in content.slides.items()}
    rows = _annotation_rows(dataset, kept, attributes, content, options, notes)
    before = Before.load(there, dataset)
    staying = before.staying(rows)
    labels = {r["label"] for r in (*rows, *staying)}
    positive = choose_positive(options.positive, before.entry.get("positive_label"), labels)
    before.check_cases(rows, annotations)
    if staying:
        notes.append(
            f"{len(staying)} annotations registered before are not in this file; they stay"
        )
    cases = {r["slide"]: r["case_id"] for r in rows}
    slides = []
    for n, slide in enumerate(s for s in content.slides.values() if s.slide in cases):
        on_slide(n, len(cases))
        case = {"case_id": cases[slide.slide]}
        case["case_source"] = options.case_from or content.case_key or "slide"
        row = _slide_row(dataset, slide, attributes[slide.slide], options, content, before)
        slides.append(row | case)
    on_slide(len(cases), len(cases))
    sources = [*(before.entry.get("source") or "").split(", "), annotations.name]
    entry = {
        "dataset": dataset, "positive_label": positive, "notes": notes,
        "source": ", ".join(dict.fromkeys(s for s in sources if s)),
        "mpp": options.mpp or before.entry.get("mpp"),
        "classes": json.dumps(classes, ensure_ascii=False),
        "created_at": before.entry.get("created_at") or now(),
    }  # fmt: skip
    n_new = _write(there or Store.open(store_uri, create=True), entry, rows, slides, before)
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
    if lost := [a for a, _ in kept if not (math.isfinite(a.x_l0) and math.isfinite(a.y_l0))]:
        raise EmbedstoreError(
            f"{content.path}: {len(lost)} annotations have no finite centre, for example "
            f"{lost[0].source_id} on {lost[0].slide}"
        )
    for a, label in kept:
        known = {**slides[a.slide], **a.attributes}  # what a row says of itself comes first
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
            "split": a.split,
        })  # fmt: skip
    if domain_key is None and options.domain is None:
        notes.append(
            f"the file names no domain: all are domain '{dataset}' (--domain-from, --domain)"
        )
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
    before: Before,
) -> dict[str, Any]:
    old = before.slides.get(slide.slide, {})
    path = _find_slide(slide.slide, attributes.get("path"), options.slides, content.path.parent)
    if path is None and old.get("path"):
        path = Path(old["path"])  # an earlier add was told where it is, this one was not
    given: tuple[float | None, str | None]
    if options.mpp:
        given = options.mpp, "option"
    elif mpp := _table_mpp(slide.slide, attributes):
        given = mpp, "slide table"
    else:
        stated = old.get("mpp_source") in (None, "slide")
        of_dataset = before.entry.get("mpp")
        known = (of_dataset, "option") if of_dataset else (None, None)
        given = known if stated else (old["mpp"], old["mpp_source"])
    row = {
        "slide_id": f"{dataset}/{slide.slide}", "dataset": dataset, "slide": slide.slide,
        "kind": content.kind,
        "path": str(path) if path else None, "width": slide.width, "height": slide.height,
        "scanner": attributes.get("scanner") or attributes.get("Scanner"),
        "attributes": json.dumps(dict(sorted(attributes.items())), ensure_ascii=False),
    }  # fmt: skip
    return row | probe(path, given)


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


def _write(
    store: Store,
    entry: dict[str, Any],
    rows: list[dict[str, Any]],
    slides: list[dict[str, Any]],
    before: Before,
) -> int:
    """Write slides, annotations and, last, the dataset's entry; return how many are new."""
    store.merge("slides", slides)
    # Before the annotations change: killed in between, the next add sees the difference again.
    follow_changes(store, rows, slides, before, entry["notes"])
    n_new = store.merge("annotations", rows)
    store.merge("datasets", [entry])
    return n_new
