"""What to try for a table whose columns have other names: options, made from what it holds."""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from embedstore.annotations.columns import UnknownColumnsError, roles
from embedstore.annotations.format import IMAGES
from embedstore.annotations.labels import KNOWN_CLASSES
from embedstore.annotations.source import SPLITS
from embedstore.files.tables import file_name

_WORDS: dict[str, str] = {
    "label": r"label|class|categor|majority|consensus|diagnos|type|grade|target|ground.?truth",
    "case": r"case|patient|subject|animal|donor|^image.?id|^slide.?id|participant",
    "domain": r"domain|tumou?r|scanner|cent(er|re)$|hospital|lab$|organ|tissue|stain|site|species",
    "split": r"split|partition|subset|fold|^set$|phase",
    "x": r"^x|x$|\bx\b|^c_?x|coord.*x|^col$",
    "y": r"^y|y$|\by\b|^c_?y|coord.*y|^row$",
    "width": r"^(b?box)?_?w(idth)?$",
    "height": r"^(b?box)?_?h(eight)?$",
}
_EXPERT = re.compile(r"^(.*?(?:expert|rater|annotator|reader|pathologist|vote).*?)\d+$", re.I)
_NEGATIVE = re.compile(
    r"^(non|no|not|normal|benign|negative|healthy|other|background|0|n)\b|^N", re.I
)
_MAX_CLASSES = 30


class _Columns:
    """The values of a table's columns, and which of them are taken."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
        self.values = {c: [str(row.get(c) or "").strip() for row in rows] for c in columns}
        self.free = list(columns)

    def take(self, names: Iterable[str]) -> list[str]:
        taken = [n for n in names if n in self.free]
        self.free = [c for c in self.free if c not in taken]
        return taken

    def named(self, role: str) -> list[str]:
        return [c for c in self.free if re.search(_WORDS[role], c.strip(), re.I)]

    def is_number(self, column: str) -> bool:
        values = [v for v in self.values[column] if v]
        return bool(values) and all(re.fullmatch(r"-?\d+(\.\d*)?(e-?\d+)?", v) for v in values)

    def n_distinct(self, column: str) -> int:
        return len({v for v in self.values[column] if v})


def suggestion(error: UnknownColumnsError) -> list[str]:
    """Return the options of `embedstore add` to try for a table; none where nothing fits it.

    They are guesses from names and values, for the user to check: nothing is read by them.
    """
    if any(re.fullmatch(r"-?\d+(\.\d+)?", c) for c in error.columns):
        words = ["x", "y", "label"] if len(error.columns) == 3 else ["slide", "x", "y", "label"]
        rest = len(error.columns) - len(words)
        return ["--columns", ",".join([*words, *["-"] * rest])] if rest >= 0 else []
    columns = _Columns(error.columns, error.rows)
    options: list[str] = []
    files = columns.take(_files(columns))
    options += [f"path={files[0]}"] if files and files[0] not in ("path", "slide") else []
    votes = _experts(columns)
    columns.take(c for c in error.columns if votes and c.startswith(votes))
    one_each = bool(files) and not _repeats(columns.values[files[0]])
    points = _points(columns)
    # Where each row has a file it is a patch, and its place is that on the slide.
    known = set(roles(error.path, error.columns))
    if not (one_each or points or {"xmin", "ymin"} <= known or {"x", "y"} <= known):
        return []
    if not one_each and not {"xmin", "ymin"} <= known:
        options += [f"{role}={column}" for role, column in points.items() if role != column]
        options += _sizes(columns)
    splits = columns.take(c for c in columns.named("split") if _are_splits(columns.values[c]))
    options += [f"split={c}" for c in splits[:1] if c != "split"]
    label = next(iter(labels(columns)), None)
    if label is None:
        return []
    columns.take([label])
    options += [f"label={label}"] if label != "label" else []
    options += [f"vote={votes}*"] if votes else []
    columns_part = [part for o in options for part in ("--column", o)]
    names = columns.values[files[0]] if files else error.names
    return columns_part + _groups(columns, names) + label_options(columns.values[label])


def command(dataset: str, options: Sequence[str]) -> str:
    """Return the command to type."""
    return shlex.join(["embedstore", "add", dataset, *options])


def other_labels(error: UnknownColumnsError, options: Sequence[str]) -> list[str]:
    """Return the columns that may hold the class beside the one that is suggested."""
    columns = _Columns(error.columns, error.rows)
    chosen = {o.partition("=")[2] for o in options}
    if "label" in error.columns:
        return []
    return [c for c in columns.named("label") if c in labels(columns) and c not in chosen]


def label_options(values: Iterable[str]) -> list[str]:
    """Return what maps classes to themselves, unless a name of theirs is known."""
    classes = sorted({v for v in values if v})
    if any(c.lower() in KNOWN_CLASSES for c in classes):
        return []
    parts = [part for c in classes for part in ("--label", f"{c}={c}")]
    if len(classes) == 2:
        positive = next((c for c in classes if not _NEGATIVE.search(c)), classes[0])
        parts += ["--positive", positive]
    return parts


def _files(columns: _Columns) -> list[str]:
    """Return the columns that name files of images, the fullest first."""

    def is_file(value: str) -> bool:
        return value.lower().endswith(IMAGES) or value.lower().endswith((".svs", ".ndpi", ".mrxs"))

    full = [c for c, values in columns.values.items() if values and all(map(is_file, values))]
    return sorted(full, key=lambda c: -columns.n_distinct(c))


def _repeats(values: Sequence[str]) -> bool:
    return len({file_name(v) for v in values}) < len(values)


def _experts(columns: _Columns) -> str | None:
    """Return what the columns of several experts begin with."""
    stems = Counter(m[1] for c in columns.free if (m := _EXPERT.match(c)))
    return next((stem for stem, n in stems.most_common(1) if n > 1), None)


def _points(columns: _Columns) -> dict[str, str]:
    """Return the columns of x and y, if both are there."""
    found = {
        axis: next((c for c in columns.named(axis) if columns.is_number(c)), None)
        for axis in ("x", "y")
    }
    x, y = found["x"], found["y"]
    if x is None or y is None or x == y:
        return {}
    columns.take([x, y])
    return {"x": x, "y": y}


def _sizes(columns: _Columns) -> list[str]:
    """Return what names the width and height of boxes, if both are there under other names."""
    found = {role: columns.take(columns.named(role)[:1]) for role in ("width", "height")}
    if not all(found.values()):
        return []
    return [f"{role}={names[0]}" for role, names in found.items() if names[0] != role]


def _are_splits(values: Sequence[str]) -> bool:
    return all(v.lower() in SPLITS for v in values if v)


def labels(columns: _Columns) -> list[str]:
    """Return the columns that may hold the class, the likeliest first."""
    few = [
        c
        for c in columns.free
        if 1 < columns.n_distinct(c) <= _MAX_CLASSES or (c == "label" and columns.n_distinct(c))
    ]
    named = [c for c in columns.named("label") if c in few]
    return named + [c for c in few if c not in named and not columns.is_number(c)]


def _groups(columns: _Columns, names: Sequence[str]) -> list[str]:
    """Return the options for case and domain."""
    cases, domains = columns.named("case"), columns.named("domain")
    options = ["--case-from", cases[0]] if cases else []
    if not cases and (pattern := case_pattern(names)):
        options = ["--case-from-name", pattern]
    domains = [c for c in domains if c not in cases[:1] and columns.n_distinct(c) > 1]
    return options + (["--domain-from", domains[0]] if domains else [])


def case_pattern(names: Iterable[str]) -> str | None:
    """Return the pattern of the shortest beginning of names, up to a mark, that tells them apart.

    None where all begin alike, or nothing is left of a name behind it.
    """
    stems = [file_name(n).rsplit(".", 1)[0] for n in dict.fromkeys(names)]
    parts = [re.split(r"[-_]", s) for s in stems]
    for n in range(1, min(map(len, parts), default=0)):
        if len({tuple(p[:n]) for p in parts}) > 1:
            return "^(" + "[-_]".join(["[^-_]+"] * n) + ")[-_]"
    return None
