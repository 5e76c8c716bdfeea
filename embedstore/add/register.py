"""The verb `add`: annotations and slides into the store, all checked before any is written."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedstore.add.changes import Before, changes_to, follow
from embedstore.add.finding import SlideFinder, beside_of
from embedstore.add.options import AddOptions, check_options
from embedstore.add.places import place
from embedstore.add.reading import read_or_suggest
from embedstore.add.rows import annotation_rows
from embedstore.add.slide_rows import (
    name_source_slides,
    note_mpp,
    note_sizes,
    slide_row,
)
from embedstore.annotations.labels import choose_positive, map_labels, note_left_out
from embedstore.annotations.slide_table import read_slide_table
from embedstore.annotations.source import AnnotationFile, Kind
from embedstore.errors import EmbedstoreError
from embedstore.files.at_hand import brought_in
from embedstore.files.objects import Place, is_uri, name_of
from embedstore.store import Store, now
from embedstore.store.copied import bring_up_to_date


@dataclass(frozen=True)
class AddReport:
    """What `add` did: counts of this file, what it left out, and what changed in the store.

    annotations and slides are the rows as they are, or would be, in the store's tables.
    """

    dataset: str
    format: str
    n_annotations: int
    n_new: int
    n_slides: int
    classes: dict[str, str | None]
    n_by_class: dict[str, int]
    notes: list[str]
    kind: Kind = "slide"
    annotations: Sequence[Mapping[str, Any]] = ()
    slides: Sequence[Mapping[str, Any]] = ()


def add(
    store_uri: str,
    dataset: str,
    annotations: Place,
    options: AddOptions,
    on_slide: Callable[[int, int], None] = lambda done, total: None,
) -> AddReport:
    """Register a file's annotations and slides under `dataset`; adding it again changes nothing.

    on_slide(done, total) is called as slides are opened. Nothing is written unless all is well, nor
    in a dry run.
    """
    check_options(dataset, options)
    is_written = not options.dry_run
    opened = Store.open(store_uri, create=is_written) if Store.is_taken(store_uri) else None
    with brought_in(annotations) as path:
        content = read_or_suggest(dataset, path, options.format, options.declared, options.slides)
        return _add(store_uri, opened, dataset, annotations, content, options, on_slide)


def add_content(
    store_uri: str, dataset: str, content: AnnotationFile, options: AddOptions
) -> AddReport:
    """Register what was read already, as `add` registers what it reads."""
    check_options(dataset, options)
    opened = Store.open(store_uri, create=True) if Store.is_taken(store_uri) else None
    return _add(
        store_uri, opened, dataset, content.path, content, options, lambda done, total: None
    )


def _add(
    store_uri: str,
    opened: Store | None,
    dataset: str,
    annotations: Place,
    content: AnnotationFile,
    options: AddOptions,
    on_slide: Callable[[int, int], None],
) -> AddReport:
    """Check what was read, find its slides and write it all."""
    _check_kind(content, options)
    kept, classes, n_by_class = map_labels(content, options.labels)
    notes = list(content.notes)
    note_left_out(classes, n_by_class, notes)
    attributes = _attributes(content, options.slide_table, notes)
    rows = annotation_rows(dataset, kept, attributes, content, options, notes)
    before = Before.load(opened, dataset)
    staying = before.staying(rows)
    labels = {r["label"] for r in (*rows, *staying)}
    positive = choose_positive(options.positive, before.entry.get("positive_label"), labels)
    before.check_cases(rows, annotations)
    if staying:
        notes.append(
            f"{len(staying)} annotations registered before are not in this file; they stay"
        )
    beside = beside_of(annotations, content)
    finder = SlideFinder(content, options.slides, beside)
    slides = _slide_rows(dataset, rows, attributes, content, options, before, finder, on_slide)
    place(rows, slides, content, options, before, notes)
    name_source_slides(slides, notes)
    if content.kind == "patch":
        note_sizes(slides, notes)
    else:
        note_mpp(slides, notes)
    if options.dry_run:
        n_new = sum(r["annotation_id"] not in before.annotations for r in rows)
    else:
        stated = {"dataset": dataset, "positive_label": positive, "notes": notes}
        entry = stated | _entry(annotations, options.mpp, classes, before.entry)
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
        rows,
        slides,
    )


def _entry(
    file: Place,
    mpp: float | Literal["file"] | None,
    classes: Mapping[str, str | None],
    old: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the dataset's row says of its files, beside what it said before."""
    sources = [
        *(old.get("source") or "").split(", "),
        name_of(file if is_uri(file) else Path(file).resolve()),
    ]
    return {
        "source": ", ".join(dict.fromkeys(s for s in sources if s)),
        "mpp": None if mpp == "file" else mpp or old.get("mpp"),
        "classes": json.dumps(classes, ensure_ascii=False),
        "created_at": old.get("created_at") or now(),
    }


def _check_kind(content: AnnotationFile, options: AddOptions) -> None:
    stated = {"--mpp": options.mpp, "--unit": options.unit, "--frame": options.frame}
    given = [option for option, value in stated.items() if value is not None]
    if content.kind == "patch" and given:
        raise EmbedstoreError(
            f"{given[0]} is for slides; patches are taken as they are: leave it out"
        )


def _attributes(
    content: AnnotationFile, slide_table: Place | None, notes: list[str]
) -> dict[str, Mapping[str, str]]:
    """Return what is known of each slide: what its file says, and its row of the slide table."""
    attributes = {name: slide.attributes for name, slide in content.slides.items()}
    if slide_table is None:
        return dict(attributes)
    # A patch has no row of its own there: its glass slide has.
    is_patch = content.kind == "patch"
    names = {s: a.get("slide", s) if is_patch else s for s, a in attributes.items()}
    with brought_in(slide_table) as path:
        of_slides, more = read_slide_table(path).match(names.values())
    notes.extend(more)
    return {s: {**a, **of_slides.get(names[s], {})} for s, a in attributes.items()}


def _slide_rows(
    dataset: str,
    rows: Sequence[Mapping[str, Any]],
    attributes: Mapping[str, Mapping[str, str]],
    content: AnnotationFile,
    options: AddOptions,
    before: Before,
    finder: SlideFinder,
    on_slide: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    cases = {r["slide"]: r["case_id"] for r in rows}
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


def _write(
    store: Store,
    entry: dict[str, Any],
    rows: list[dict[str, Any]],
    slides: list[dict[str, Any]],
    before: Before,
) -> int:
    """Write slides, annotations and, last, the dataset's entry; return how many are new.

    Embeddings follow first: killed before the slides are written, the next add sees the difference
    again; killed later, it finds what was done under `pending`.
    """
    changes = changes_to(rows, slides, before)
    said = list(dict.fromkeys([*(before.entry.get("pending") or []), *changes.notes()]))
    if said and before.entry:
        store.merge("datasets", [before.entry | {"pending": said}])
    follow(store, changes)
    store.merge("slides", slides)
    n_new = store.merge("annotations", rows)
    bring_up_to_date(store)
    entry["notes"] += said
    store.merge("datasets", [entry | {"pending": None}])
    return n_new
