"""The rows of `annotations` that `add` writes: keys, domain, case and place of each."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedstore.add.options import AddOptions
from embedstore.annotations.source import AnnotationFile, Kind, SourceAnnotation
from embedstore.errors import EmbedstoreError


def annotation_rows(
    dataset: str,
    kept: Sequence[tuple[SourceAnnotation, str]],
    slides: Mapping[str, Mapping[str, str]],
    content: AnnotationFile,
    options: AddOptions,
    notes: list[str],
) -> list[dict[str, Any]]:
    """Return the rows of (annotation, its label); slides are the attributes of each.

    EmbedstoreError where an id stands twice, a slide is in two cases, a place is no place, or what
    domain and case are taken from is not there.
    """
    domain_key = None if options.domain else options.domain_from or content.domain_key
    case_key = options.case_from or content.case_key
    if lost := [a for a, _ in kept if a.x_l0 is not None and not _is_placed(a)]:
        raise EmbedstoreError(
            f"{content.path}: {len(lost)} annotations have no finite centre, for example "
            f"{lost[0].source_id} on {lost[0].slide}"
        )
    # What a row says comes first.
    attributes = [{**slides[a.slide], **a.attributes} for a, _ in kept]
    _check_keys({"--domain-from": domain_key, "--case-from": case_key}, kept, attributes)
    domains = _domains(domain_key, attributes, options.domain or dataset, notes)
    rows = [
        {
            "annotation_id": f"{dataset}/{a.slide}/{a.source_id}",
            "dataset": dataset,
            "slide": a.slide,
            "case_id": of[case_key] if case_key else a.slide,
            "domain": domain,
            "label": label,
            "x_l0": a.x_l0,
            "y_l0": a.y_l0,
            "source_id": a.source_id,
            "category": a.category,
            "votes": list(a.votes),
            "split": a.split,
        }
        for (a, label), of, domain in zip(kept, attributes, domains, strict=True)
    ]
    if domain_key is None and options.domain is None:
        notes.append(
            f"the file names no domain: all are domain '{dataset}' (--domain-from, --domain)"
        )
    if case_key is None:
        notes.append(_NO_CASE[content.kind])
    _check_unique(rows, content.path)
    return rows


RESERVED = ("all", "in domain", "out of domain")
"""What results call their sums over domains: a domain of that name is told apart."""


def _domains(
    key: str | None, attributes: Sequence[Mapping[str, str]], usual: str, notes: list[str]
) -> list[str]:
    """Return the domain of each annotation; one that has a sum's name gets another, and is told."""
    stated = [of[key] if key else usual for of in attributes]
    if taken := sorted(set(stated) & set(RESERVED)):
        renamed = ", ".join(f"'{d}' is stored as 'domain {d}'" for d in taken)
        notes.append(f"results call their sums over domains {', '.join(RESERVED)}: {renamed}")
    return [f"domain {d}" if d in RESERVED else d for d in stated]


_NO_CASE: dict[Kind, str] = {
    "slide": "the file names no case: every slide counts as its own (--case-from)",
    "patch": "the file names no case: every patch counts as a slide and a case of its own, so "
    "splits cannot see which patches come from one slide (--case-from)",
}


def _check_keys(
    keys: Mapping[str, str | None],
    kept: Sequence[tuple[SourceAnnotation, str]],
    attributes: Sequence[Mapping[str, str]],
) -> None:
    """Raise EmbedstoreError where an annotation lacks the attribute that an option names."""
    for option, key in keys.items():
        lacking = [k for k, of in enumerate(attributes) if key is not None and not of.get(key)]
        if lacking:
            first = lacking[0]
            n_slides = len({kept[k][0].slide for k in lacking})
            more = f", nor have {n_slides - 1} others" if n_slides > 1 else ""
            raise EmbedstoreError(
                f"slide {kept[first][0].slide} has no '{key}' ({option}){more}; it has: "
                f"{', '.join(sorted(attributes[first])) or 'nothing'}"
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
