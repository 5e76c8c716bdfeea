"""The verb `add`: annotations and slides into the store, all checked before any is written."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedstore.add.changes import Before, follow_changes
from embedstore.add.slide_rows import SlideFinder, note_mpp, note_sizes, slide_row
from embedstore.annotations.labels import choose_positive, map_labels, note_left_out
from embedstore.annotations.readers import read_annotations
from embedstore.annotations.slide_table import read_slide_table
from embedstore.annotations.source import AnnotationFile, Kind, SourceAnnotation
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.slides.slide import MPP_MAX, MPP_MIN, is_plausible_mpp
from embedstore.store import Store, now


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
    kind: Kind = "slide"


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
    opened = Store.open(store_uri, create=True) if Store.is_taken(store_uri) else None
    content = read_annotations(annotations, options.format)
    if content.kind == "patch" and options.mpp is not None:
        raise EmbedstoreError("--mpp is for slides; patches are taken as they are: leave it out")
    kept, classes, n_by_class = map_labels(content, options.labels)
    notes = list(content.notes)
    note_left_out(classes, n_by_class, notes)
    attributes = _attributes(content, options.slide_table, notes)
    rows = _annotation_rows(dataset, kept, attributes, content, options, notes)
    before = Before.load(opened, dataset)
    staying = before.staying(rows)
    labels = {r["label"] for r in (*rows, *staying)}
    positive = choose_positive(options.positive, before.entry.get("positive_label"), labels)
    before.check_cases(rows, annotations)
    if staying:
        notes.append(
            f"{len(staying)} annotations registered before are not in this file; they stay"
        )
    slides = _slide_rows(dataset, rows, attributes, content, options, before, on_slide)
    if content.kind == "patch":
        note_sizes(slides, notes)
    else:
        note_mpp(slides, notes)
    sources = [*(before.entry.get("source") or "").split(", "), annotations.resolve().name]
    entry = {
        "dataset": dataset,
        "positive_label": positive,
        "notes": notes,
        "source": ", ".join(dict.fromkeys(s for s in sources if s)),
        "mpp": options.mpp or before.entry.get("mpp"),
        "classes": json.dumps(classes, ensure_ascii=False),
        "created_at": before.entry.get("created_at") or now(),
    }
    n_new = _write(opened or Store.open(store_uri, create=True), entry, rows, slides, before)
    return AddReport(
        dataset,
        content.format,
        len(rows),
        n_new,
        len(slides),
        classes,
        n_by_class,
        notes,
        content.kind,
    )


def _check_options(dataset: str, options: AddOptions) -> None:
    if not dataset or "/" in dataset or dataset != dataset.strip():
        raise UsageError(f"'{dataset}' cannot name a dataset: give a word without a slash")
    if options.mpp is not None and not is_plausible_mpp(options.mpp):
        raise UsageError(
            f"--mpp {options.mpp:g} is not between {MPP_MIN} and {MPP_MAX} um/px; "
            "give micrometres per pixel of level 0 (0.25 for a x40 scan)"
        )
    if options.domain and options.domain_from:
        raise UsageError("give --domain NAME or --domain-from COLUMN, not both")
    if options.slides is not None and not options.slides.is_dir():
        raise EmbedstoreError(f"no folder of slides at {options.slides}")


def _attributes(
    content: AnnotationFile, slide_table: Path | None, notes: list[str]
) -> dict[str, Mapping[str, str]]:
    """Return what is known of each slide: what its file says, and its row of the slide table."""
    attributes = {name: slide.attributes for name, slide in content.slides.items()}
    if slide_table is None:
        return dict(attributes)
    # A patch has no row of its own there: its glass slide has.
    is_patch = content.kind == "patch"
    names = {s: a.get("slide", s) if is_patch else s for s, a in attributes.items()}
    of_slides, more = read_slide_table(slide_table).match(names.values())
    notes.extend(more)
    return {s: {**a, **of_slides.get(names[s], {})} for s, a in attributes.items()}


def _slide_rows(
    dataset: str,
    rows: Sequence[Mapping[str, Any]],
    attributes: Mapping[str, Mapping[str, str]],
    content: AnnotationFile,
    options: AddOptions,
    before: Before,
    on_slide: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    cases = {r["slide"]: r["case_id"] for r in rows}
    finder = SlideFinder(content, options.slides)
    source = options.case_from or content.case_key or "slide"
    slides = []
    for n, slide in enumerate(s for s in content.slides.values() if s.slide in cases):
        on_slide(n, len(cases))
        of_slide = attributes[slide.slide]
        path = finder.find(slide.slide, of_slide)
        row = slide_row(dataset, slide, of_slide, content.kind, path, options.mpp, before)
        slides.append(row | {"case_id": cases[slide.slide], "case_source": source})
    on_slide(len(cases), len(cases))
    return slides


def _annotation_rows(
    dataset: str,
    kept: Sequence[tuple[SourceAnnotation, str]],
    slides: Mapping[str, Mapping[str, str]],
    content: AnnotationFile,
    options: AddOptions,
    notes: list[str],
) -> list[dict[str, Any]]:
    domain_key = None if options.domain else options.domain_from or content.domain_key
    case_key = options.case_from or content.case_key
    _check_unit([a for a, _ in kept], content)
    if lost := [a for a, _ in kept if a.x_l0 is not None and not _is_placed(a)]:
        raise EmbedstoreError(
            f"{content.path}: {len(lost)} annotations have no finite centre, for example "
            f"{lost[0].source_id} on {lost[0].slide}"
        )
    # What a row says comes first.
    attributes = [{**slides[a.slide], **a.attributes} for a, _ in kept]
    for key, option in ((domain_key, "--domain-from"), (case_key, "--case-from")):
        lacking = [k for k, of in enumerate(attributes) if key is not None and not of.get(key)]
        if lacking:
            first = lacking[0]
            n_slides = len({kept[k][0].slide for k in lacking})
            more = f", nor have {n_slides - 1} others" if n_slides > 1 else ""
            raise EmbedstoreError(
                f"slide {kept[first][0].slide} has no '{key}' ({option}){more}; it has: "
                f"{', '.join(sorted(attributes[first])) or 'nothing'}"
            )
    rows = [
        {
            "annotation_id": f"{dataset}/{a.slide}/{a.source_id}",
            "dataset": dataset,
            "slide": a.slide,
            "case_id": of[case_key] if case_key else a.slide,
            "domain": of[domain_key] if domain_key else options.domain or dataset,
            "label": label,
            "x_l0": a.x_l0,
            "y_l0": a.y_l0,
            "source_id": a.source_id,
            "category": a.category,
            "votes": list(a.votes),
            "split": a.split,
        }
        for (a, label), of in zip(kept, attributes, strict=True)
    ]
    if domain_key is None and options.domain is None:
        notes.append(
            f"the file names no domain: all are domain '{dataset}' (--domain-from, --domain)"
        )
    if case_key is None and content.kind == "patch":
        notes.append(
            "the file names no case: every patch counts as a slide and a case of its own, so "
            "splits cannot see which patches come from one slide (--case-from)"
        )
    elif case_key is None:
        notes.append("the file names no case: every slide counts as its own (--case-from)")
    _check_unique(rows, content.path)
    return rows


def _check_unit(annotations: Sequence[SourceAnnotation], content: AnnotationFile) -> None:
    """Raise EmbedstoreError where every place lies in the unit square: those are no pixels."""
    places = [v for a in annotations for v in (a.x_l0, a.y_l0) if v is not None]
    is_relative = bool(places) and all(0 <= v <= 1 for v in places) and any(v % 1 for v in places)
    if is_relative:
        raise EmbedstoreError(
            f"{content.path}: all x and y lie between 0 and 1, so they are parts of the slide's "
            "width and height and no pixels; multiply them by the width and height of level 0"
        )


def _is_placed(a: SourceAnnotation) -> bool:
    return all(v is not None and math.isfinite(v) for v in (a.x_l0, a.y_l0))


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
