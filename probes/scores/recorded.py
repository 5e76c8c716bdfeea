"""What is on record of runs, their results and comparisons: columns of those views."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as recorded: on which split, by whom, and what came of the fit.

    threshold is the cut of two labels, chosen on validation data; state is ok, or what went wrong.
    """

    run_id: str
    manifest_id: str
    dataset: str
    method: str
    params: str
    model: str
    weights: str | None
    weights_sha256: str | None
    scheme: str
    group_by: str
    stratify: str
    where_sql: str | None
    target: str
    fold: int
    fraction: float
    train_domain: str | None
    eval_dataset: str | None
    threshold: float | None
    n_train: int
    n_val: int
    seed: int
    seconds: float | None
    state: str
    chosen: str | None
    pixels: str | None
    embeddings_version: int | None
    embedded_at: datetime | None
    ci_by: str | None
    software: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ResultRow(RunRow):
    """One number of a run: a metric on one eval domain, with the bounds of its 95% interval."""

    eval_domain: str
    metric: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n_test: int
    n_pos: int | None
    n_groups: int | None
    ci_kind: str | None


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """What `compare` found of sides a and b over all folds; run_ids: what it was made of."""

    a: str
    b: str
    eval_domain: str
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    run_ids: tuple[str, ...]
    created_at: datetime
