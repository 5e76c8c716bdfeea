"""The annotations that a study looks at, with any column of them or of their slides."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.store.sql import embedded_models, fetch, identifier, literal
from probes.splits.draw import keyed_order

SEED = 42
"""Of what is drawn, as `probes run` has it where none is given."""
USUAL_FACTORS = ("slide", "scanner", "domain")
"""Columns that are looked at where none is named, as far as they have several values."""
LIMIT = 3_000
"""Annotations drawn where a dataset has more: all pairs of them are compared."""

Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Cells:
    """The annotations looked at: ids, labels, slides (or cases) and the factors, each (n,)."""

    ids: list[str]
    labels: NDArray[Any]
    groups: NDArray[Any]
    factors: Mapping[str, NDArray[Any]]
    ci_by: str

    def codes(self, factor: str) -> tuple[Codes, Codes]:
        """Return which annotations have the factor, and the code of each one's value."""
        values = self.factors[factor]
        have = np.flatnonzero([v is not None for v in values]).astype(np.intp)
        return have, codes_of(values[have])


def codes_of(values: NDArray[Any]) -> Codes:
    """Return the place of each value among all of them, sorted."""
    return np.asarray(np.unique(values.astype(str), return_inverse=True)[1], dtype=np.intp)


def models_of(con: Any, dataset: str, asked: Sequence[str] | None) -> list[str]:
    """Return the models asked for, or all that have embeddings; EmbedstoreError for others."""
    have = embedded_models(con, dataset)
    if not have:
        raise EmbedstoreError(f"dataset '{dataset}' has no embeddings; `embedstore ingest` first")
    if unknown := [m for m in asked or () if m not in have]:
        raise EmbedstoreError(
            f"no embeddings of {', '.join(unknown)} for '{dataset}'; there: {', '.join(have)}"
        )
    return list(dict.fromkeys(asked or have))


def random_models(con: Any) -> set[str]:
    """Return the models whose weights are random."""
    rows = fetch(con, "select model from models where weights = 'random'")
    return set(rows["model"].to_pylist())


def drawn(ids: Sequence[str], limit: int) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Return which of the ids are drawn where there are more than limit, and a note on it.

    None for all of them; limit 0: all.
    """
    if not limit or len(ids) <= limit:
        return None, []
    note = f"{limit:,} of {len(ids):,} annotations are drawn; --limit 0 takes all"
    return np.sort(keyed_order(ids, SEED, "study")[:limit]), [note]


def cells_of(
    con: Any, dataset: str, asked: Sequence[str] | None, limit: int = 0
) -> tuple[Cells, list[str]]:
    """Return the annotations looked at, with their factors, and notes on what is left out.

    asked None: USUAL_FACTORS, as far as they have two values. UsageError where one asked for has
    not; EmbedstoreError where there is no factor at all, or one label.
    """
    rows = _rows(con, dataset, list(dict.fromkeys(asked or USUAL_FACTORS)))
    at, notes = drawn(rows["annotation_id"].tolist(), limit)
    if at is not None:
        rows = {c: v[at] for c, v in rows.items()}
    factors = {}
    for name in asked or USUAL_FACTORS:
        values = {v for v in rows[f"of {name}"] if v is not None}
        if len(values) > 1:
            factors[name] = rows[f"of {name}"]
        elif asked:
            what = f"one value, '{next(iter(values))}'" if values else "no value"
            raise UsageError(
                f"--by {name}: '{dataset}' has {what}; it takes two, in a column of the views "
                "annotations or slides, or of the slide table"
            )
        else:
            notes.append(f"{name}: fewer than two values")
    if not factors:
        raise EmbedstoreError(
            f"'{dataset}' has one slide, scanner and domain: nothing to be robust to; --by COLUMN "
            "names another column"
        )
    if len(set(rows["label"])) < 2:
        raise EmbedstoreError(f"'{dataset}' has one label: there is nothing to tell apart")
    slides, cases = rows["on slide"], rows["of case"]
    by_case = any(c not in (None, s) for c, s in zip(cases, slides, strict=True))
    groups = (cases if by_case else slides).astype(str)
    ids = rows["annotation_id"].tolist()
    return Cells(ids, rows["label"], groups, factors, "case" if by_case else "slide"), notes


def _rows(con: Any, dataset: str, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return columns of the usable annotations of a dataset, each object (n,), sorted by id."""
    slide = "coalesce(a.source_slide, a.slide)"
    known = {
        v: fetch(con, f"select * from {v} limit 0").column_names for v in ("annotations", "slides")
    }
    each, of_table = [], []
    for name in columns:
        named, sql = identifier(f"of {name}"), f"a.{identifier(name)}::varchar"
        if name == "slide":
            sql = slide
        elif name not in known["annotations"]:
            sql = f"s.{identifier(name)}::varchar"
            if name not in known["slides"]:
                of_table.append(name)  # by the slide table, if at all
                sql = "s.attributes"
        each.append(f"{sql} as {named}")
    table = fetch(
        con,
        f'select a.annotation_id, a.label, {slide} as "on slide", a.case_id as "of case", '
        f"{', '.join(each)} from annotations a left join slides s on s.dataset = a.dataset and "
        f"s.slide = a.slide where a.dataset = {literal(dataset)} and a.status = 'ok' order by 1",
    )
    rows = {c: np.array(table[c].to_pylist(), dtype=object) for c in table.column_names}
    for name in of_table:
        read = {t: (json.loads(t) if t else {}).get(name) for t in set(rows[f"of {name}"])}
        rows[f"of {name}"] = np.array([read[t] for t in rows[f"of {name}"]], dtype=object)
    return rows
