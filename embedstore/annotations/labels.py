"""What the classes of an annotation file mean, and which label is the positive one."""

from collections import Counter
from collections.abc import Mapping

from embedstore.annotations.names import tidy
from embedstore.annotations.source import AnnotationFile, SourceAnnotation
from embedstore.errors import EmbedstoreError

MITOTIC, NON_MITOTIC = "mitotic figure", "non-mitotic figure"

KNOWN_CLASSES: dict[str, str] = {
    **dict.fromkeys(
        (
            "mitotic figure",
            "mitotic figures",
            "mitotic cell",
            "mitotic cells",
            "mitosis",
            "mitose",
            "mitosen",
            "mitoses",
            "mitotic",
        ),
        MITOTIC,
    ),
    **dict.fromkeys(
        (
            "non-mitotic figure",
            "not mitotic figure",
            "non mitotic figure",
            "non-mitotic figures",
            "non-mitotic cell",
            "non-mitotic cells",
            "non-mitosis",
            "nonmitosis",
            "non_mitosis",
            "no mitosis",
            "non-mitotic",
            "nonmitotic",
            "non_mitotic",
            "hard negative",
            "hard negatives",
            "hard negative look-alike",
            "hard negative imposter",
            "mitotic-like",
            "mitosis-like",
            "mitotic figure look-alike",
            "mitotic figure lookalike",
            "look-alike",
            "lookalike",
            "imposter",
            "impostor",
        ),
        NON_MITOTIC,
    ),
}
"""Class names seen in public files (lower case) and the label each one means."""


CODES: dict[frozenset[str], tuple[str, str]] = {
    frozenset(pair): pair
    for pair in (("1", "0"), ("1", "2"), ("1.0", "0.0"), ("True", "False"), ("true", "false"))
}
"""Codes that files of mitotic figures use, that of the figure first: told, never taken for it."""


def map_labels(
    content: AnnotationFile, labels: Mapping[str, str]
) -> tuple[list[tuple[SourceAnnotation, str]], dict[str, str | None], dict[str, int]]:
    """Return the annotations with a label, the label of each class (None: left out), and counts.

    labels says what a class means; known names are guessed. EmbedstoreError where a class named
    in labels is not in the file, or no class means anything. Numbers mean nothing by themselves.
    """
    labels = {tidy(c): tidy(label) for c, label in labels.items()}
    n_by_class = dict(Counter(a.category for a in content.annotations).most_common())
    if unknown := [c for c in labels if c not in n_by_class]:
        raise EmbedstoreError(
            f"--label names class {', '.join(map(repr, unknown))}, but {content.path} has: "
            f"{', '.join(map(repr, n_by_class))}"
        )
    classes = {c: labels.get(c) or KNOWN_CLASSES.get(c.strip().lower()) for c in n_by_class}
    if not any(classes.values()):
        raise EmbedstoreError(
            f"no class of {content.path} is known: {', '.join(map(repr, n_by_class))}; say what "
            f"each means with --label 'CLASS=LABEL', for example {_examples(list(n_by_class))}"
        )
    kept = [(a, label) for a in content.annotations if (label := classes[a.category])]
    return kept, classes, n_by_class


def note_left_out(
    classes: Mapping[str, str | None], n_by_class: Mapping[str, int], notes: list[str]
) -> None:
    """Append which classes were left out, and how to take them in where one label is left alone."""
    unmapped = [c for c, label in classes.items() if label is None]
    notes.extend(f"{n_by_class[c]} annotations of class '{c}' were left out" for c in unmapped)
    labels = {label for label in classes.values() if label}
    if unmapped and len(labels) == 1:
        (only,) = labels
        other = NON_MITOTIC if only == MITOTIC else MITOTIC if only == NON_MITOTIC else "LABEL"
        notes.append(
            f"'{only}' is the only label left, which no probe can learn from; a class left out is "
            f"taken in with {_option(unmapped[0], other)}"
        )


def _option(name: str, label: str) -> str:
    """Return the --label option as a shell takes it."""
    return "--label '" + f"{name}={label}".replace("'", "'\"'\"'") + "'"


def _examples(classes: list[str]) -> str:
    """Return options that can be copied: codes as mitosis files mean them, names as themselves."""
    codes = CODES.get(frozenset(classes))
    themselves = " ".join(_option(c, c) for c in sorted(classes)[:12])
    if len(classes) == 2:
        positive = max(classes).replace("'", "'\"'\"'")
        themselves += f" --positive '{positive}'"
    if codes is None:
        return f"as they are: {themselves}"
    mitosis = f"{_option(codes[0], MITOTIC)} {_option(codes[1], NON_MITOTIC)}"
    return f"for mitotic figures: {mitosis}; or as they are: {themselves}"


def choose_positive(asked: str | None, recorded: str | None, labels: set[str]) -> str | None:
    """Return the positive label: asked for, recorded, or known; None beyond two labels."""
    if asked is not None and asked not in labels:
        raise EmbedstoreError(
            f"--positive '{asked}' is no label here; labels: {', '.join(sorted(labels))}"
        )
    if recorded not in labels:
        recorded = None  # the file was mapped anew
    if asked is not None and recorded is not None and asked != recorded:
        raise EmbedstoreError(
            f"the positive label is recorded as '{recorded}', and results are for it; register the "
            f"file under another dataset name to make it '{asked}'"
        )
    positive = asked or recorded or (MITOTIC if MITOTIC in labels else None)
    if positive is None and len(labels) == 2:
        first, second = sorted(labels)
        raise EmbedstoreError(
            f"which of the two labels is the positive one? Say --positive '{first}' or "
            f"--positive '{second}'"
        )
    return positive
