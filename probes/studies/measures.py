"""Measures: the numbers of a study, on record (view `measures`)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from embedstore.store import Store, now
from embedstore.store.layout import MEASURES
from embedstore.store.records import fetch_records
from embedstore.store.sql import literal
from probes.scores.results import to_null
from probes.scores.statistics import KIND, Comparison, Estimate
from probes.splits.candidates import candidates
from probes.splits.spec import ManifestSpec


@dataclass(frozen=True)
class Measure:
    """One number of a study: of a model, or of a model less another (against).

    factor: the column it is about; split: on which split; x: where on an axis (shots, a number of
    slides); n: of how many annotations (or models, where it is of models); ci_by and n_groups: what
    is left out for its interval (slide, case), and how many of them. details go to JSON.
    """

    metric: str
    value: float | None
    model: str | None = None
    against: str | None = None
    factor: str | None = None
    split: str | None = None
    x: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    ci_by: str | None = None
    ci_kind: str | None = None
    p_value: float | None = None
    p_holm: float | None = None
    n: int | None = None
    n_groups: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def bounds(of: Estimate | Comparison, kind: str = KIND) -> dict[str, Any]:
    """Return the value, interval and p-value of an estimate, as fields of a `Measure`."""
    low, high = to_null(of.low), to_null(of.high)
    value, p_value = (of.difference, of.p_value) if isinstance(of, Comparison) else (of.value, None)
    error = to_null(of.error) if isinstance(of, Comparison) else None
    return {
        "value": to_null(value),
        "ci_low": low,
        "ci_high": high,
        "ci_kind": None if low is None else kind,
        "p_value": to_null(p_value),
        "details": {} if error is None else {"error": error},
    }


def record_measures(
    store: Store,
    dataset: str,
    study: str,
    measures: Sequence[Measure],
    of: Mapping[str, str] | None = None,
) -> None:
    """Write what a study found of a dataset, all at once, in place of what it had found before.

    of: columns and values of these measures, where they replace those alone that have the same.
    """
    same = {
        "dataset": dataset,
        "study": study,
        "manifest_id": made_of(store, dataset),
        "created_at": now(),
    }
    rows = {}
    for m in measures:
        key = [dataset, study, m.metric, m.model, m.against, m.factor, m.split, m.x]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        assert name not in rows, key
        rows[name] = {
            "measure_id": name,
            **same,
            **{k: v for k, v in vars(m).items() if k != "details"},
            "details": json.dumps(dict(m.details), sort_keys=True) if m.details else None,
        }
    replaced = {"dataset": dataset, "study": study} | dict(of or {})
    instead_of = " and ".join(f"{column} = {literal(v)}" for column, v in replaced.items())
    store.merge(MEASURES, list(rows.values()), instead_of=instead_of)


def made_of(store: Store, dataset: str) -> str:
    """Return the digest of a dataset's usable annotations as they are now."""
    return candidates(store, ManifestSpec(dataset)).manifest_id


@dataclass(frozen=True, slots=True)
class MeasureRow:
    """A measure as recorded: a row of the view `measures`."""

    dataset: str
    study: str
    model: str | None
    against: str | None
    factor: str | None
    split: str | None
    metric: str
    x: float | None
    value: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None
    n: int | None
    n_groups: int | None
    ci_by: str | None
    ci_kind: str | None
    details: str | None
    manifest_id: str
    created_at: datetime

    @property
    def more(self) -> dict[str, Any]:
        """What else is known of it."""
        return dict(json.loads(self.details)) if self.details else {}


def load_measures(con: Any, dataset: str, study: str) -> list[MeasureRow]:
    """Return what a study found of a dataset, in a stable order."""
    return fetch_records(
        con,
        MeasureRow,
        "from measures where dataset = $dataset and study = $study "
        "order by metric, factor, split, x, model, against",
        {"dataset": dataset, "study": study},
    )


def shown(measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """Return measures as rows with the columns of the view, for `--json`."""
    return [asdict(m) for m in measures]
