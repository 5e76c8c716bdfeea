"""Names as people mean them: spellings that look alike are one name, and it is told."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from embedstore.annotations.source import AnnotationFile, SourceAnnotation, SourceSlide

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


def tidy(text: str) -> str:
    """Return a name without what cannot be seen of it.

    Spaces around it and in rows, spaces of other kinds, characters without width, and letters
    composed in two ways (Unicode's NFC is taken).
    """
    visible = unicodedata.normalize("NFC", text).translate(_INVISIBLE)
    return re.sub(r"\s+", " ", visible).strip()


def tidied(content: AnnotationFile) -> AnnotationFile:
    """Return a file's content with tidy names of classes, votes and attributes, and notes on them.

    A path keeps its inner spaces: files are found by it.
    """
    changed: dict[str, Counter[str]] = defaultdict(Counter)

    def named(role: str, text: str) -> str:
        short = text.strip() if _is_path(text) else tidy(text)
        if short != text:
            changed[role][text] += 1
        return short

    def attributes_of(of: Mapping[str, str]) -> dict[str, str]:
        return {k: named(k, v) for k, v in of.items()}

    shared: dict[int, dict[str, str]] = {}  # many annotations have their slide's own attributes
    slides = {
        name: replace(
            s, attributes=shared.setdefault(id(s.attributes), attributes_of(s.attributes))
        )
        for name, s in content.slides.items()
    }
    annotations = [
        replace(
            a,
            category=named("class", a.category),
            votes=tuple(named("vote", v) for v in a.votes),
            attributes=shared[id(a.attributes)]
            if id(a.attributes) in shared
            else attributes_of(a.attributes),
        )
        for a in content.annotations
    ]
    keys = {k: k for k in (content.domain_key, content.case_key) if k}
    told = ["class", *keys, *(r for r in changed if r not in ("class", *keys))]
    notes = [
        f"{len(changed[role])} spellings of {role} have spaces or marks that cannot be seen "
        f"({', '.join(map(repr, sorted(changed[role])[:3]))}): they were taken without"
        for role in told
        if changed[role]
    ]
    notes += _alike("class", (a.category for a in annotations))
    for key in keys:
        notes += _alike(key, _values(key, slides, annotations))
    return replace(content, slides=slides, annotations=annotations, notes=[*content.notes, *notes])


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or re.search(r"\.\w{2,8}\s*$", text) is not None


def _values(
    key: str, slides: Mapping[str, SourceSlide], annotations: Iterable[SourceAnnotation]
) -> Iterable[str]:
    of_all = [s.attributes for s in slides.values()] + [a.attributes for a in annotations]
    return (of[key] for of in of_all if key in of)


def _alike(role: str, names: Iterable[str]) -> list[str]:
    """Return a note on names that differ in nothing but upper and lower case: they stay apart."""
    folded: dict[str, set[str]] = defaultdict(set)
    for name in set(names):
        folded[name.casefold()].add(name)
    pairs = [" and ".join(map(repr, sorted(same))) for same in folded.values() if len(same) > 1]
    if not pairs:
        return []
    return [
        f"{role} {'; '.join(sorted(pairs)[:3])} differ in upper and lower case alone: they stay two"
    ]
