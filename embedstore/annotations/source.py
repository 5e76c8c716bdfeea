"""What every annotation file comes down to: slides, labelled points, and what was left out.

The readers (`read_*`, listed in `readers`) build these; which classes become which labels, and what
counts as a domain, is decided in `labels` and `register`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from embedstore.errors import EmbedstoreError

Kind = Literal["slide", "patch"]
Unit = Literal["px", "um", "relative", "percent"]
Frame = Literal["level0", "bounds"]

SPLITS: dict[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "validation", "valid", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""How files name a split (lower case), and the word for it here."""


@dataclass(frozen=True)
class SourceSlide:
    """One image file as the annotation file describes it.

    width and height are level-0 pixels, None where the file does not say; attributes holds every
    other scalar the file says about the slide (as text), so that `--domain-from` can name one.
    """

    slide: str
    width: int | None = None
    height: int | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceAnnotation:
    """One labelled point: centre in level-0 pixels, class name as the file spells it.

    The centre is None where slides are patches: it follows from the patch's size. split is train,
    val or test where the file says so, votes what each expert said.
    """

    slide: str
    source_id: str
    x_l0: float | None
    y_l0: float | None
    category: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    votes: tuple[str, ...] = ()
    split: str | None = None

    @property
    def says(self) -> tuple[float | None, float | None, str, str | None]:
        """Return what two annotations of one id must agree on."""
        return self.x_l0, self.y_l0, self.category, self.split


@dataclass(frozen=True)
class AnnotationFile:
    """What one file holds. `domain_key` and `case_key` name the format's usual attributes.

    kind is "slide" where slides are images to cut patches from, "patch" where each is one patch.
    unit is what places are in where the file states it.
    """

    path: Path
    format: str
    slides: dict[str, SourceSlide]
    annotations: list[SourceAnnotation]
    domain_key: str | None = None
    case_key: str | None = None
    notes: list[str] = field(default_factory=list)
    kind: Kind = "slide"
    unit: Unit | None = None

    @property
    def folder(self) -> Path:
        """Return the folder that paths in the file are relative to."""
        return self.path if self.path.is_dir() else self.path.parent


def keep_annotated(
    path: Path,
    slides: Iterable[SourceSlide],
    annotations: Iterable[SourceAnnotation],
    notes: list[str],
) -> dict[str, SourceSlide]:
    """Return by name the slides that carry annotations; the others are noted.

    EmbedstoreError where two images have one name.
    """
    by_name: dict[str, SourceSlide] = {}
    doubles = {s.slide for s in slides if by_name.setdefault(s.slide, s) is not s}
    if doubles:
        raise EmbedstoreError(
            f"{path} names several images {', '.join(sorted(doubles)[:5])}; a slide is known by "
            "its file name, so give each file a name of its own"
        )
    used = {a.slide for a in annotations}
    kept = {name: s for name, s in by_name.items() if name in used}
    note_count(
        notes, len(by_name) - len(kept), f"of {len(by_name)} slides carry no annotation and were"
    )
    return kept


class Distinct:
    """Annotations by slide and id: repeats are counted, contradictions refused."""

    def __init__(self) -> None:
        """Start with none."""
        self._seen: dict[tuple[str, str], SourceAnnotation] = {}
        self._repeats: list[str] = []

    def add(self, new: SourceAnnotation, path: Path, place: str) -> None:
        """Keep an annotation unless it is there; EmbedstoreError where it says something else."""
        old = self._seen.setdefault((new.slide, new.source_id), new)
        if old is new:
            return
        if old.says != new.says:
            raise EmbedstoreError(
                f"{path} {place}: {new.slide} has {new.source_id} twice, {_said(new)} and "
                f"{_said(old)}; keep one of them"
            )
        self._repeats.append(place)

    def values(self, notes: list[str], unit: str = "rows") -> list[SourceAnnotation]:
        """Return the annotations in order of the file; repeats are noted."""
        if self._repeats:
            notes.append(
                f"{len(self._repeats)} {unit} repeat earlier ones and were left out "
                f"({self._repeats[0]})"
            )
        return list(self._seen.values())


def _said(a: SourceAnnotation) -> str:
    place = "" if a.x_l0 is None else f"at ({a.x_l0:g}, {a.y_l0:g}) "
    return f"{place}as '{a.category}'" + (f" in {a.split}" if a.split else "")


def note_count(notes: list[str], n: int, what: str) -> None:
    """Append the note "`n` `what` left out" where n is not zero."""
    if n:
        notes.append(f"{n} {what} left out")


def content_id(slide: str, x_l0: float, y_l0: float) -> str:
    """Return an id from the place alone, which sorting and relabelling a file keep."""
    return hashlib.sha256(f"{slide}\t{x_l0!r}\t{y_l0!r}".encode()).hexdigest()[:12]


def check_splits(path: Path, values: Iterable[str]) -> None:
    """Raise EmbedstoreError naming the values that name no split; empty ones are in none."""
    if wrong := sorted({v for v in values if v.strip() and v.strip().lower() not in SPLITS}):
        raise EmbedstoreError(
            f"{path}: split holds {', '.join(map(repr, wrong[:8]))}; allowed: {', '.join(SPLITS)}, "
            "or nothing for no split. Rename the column if it means something else"
        )


def split_of(value: str | None) -> str | None:
    """Return train, val or test for a value that `check_splits` has passed, None for none."""
    return SPLITS.get((value or "").strip().lower())


def first_key(slides: Sequence[SourceSlide], *keys: str) -> str | None:
    """Return the first of keys that any slide has as an attribute."""
    return next((k for k in keys if any(k in s.attributes for s in slides)), None)
