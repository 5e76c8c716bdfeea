"""What `compare` found over all folds, on record."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedstore.store import Store
from embedstore.store.layout import COMPARISONS
from embedstore.store.sql import connect, fetch_rows
from probes.scores.statistics import KIND
from probes.splits.spec import ManifestSpec


@dataclass(frozen=True)
class CompareOptions:
    """Which runs of a spec are compared, in what and how."""

    fractions: Sequence[float] | None = None
    metric: str = "auroc"


def is_compared(store: Store, spec: ManifestSpec, options: CompareOptions) -> bool:
    """Return whether comparisons of these runs are recorded that are newer than all of them."""
    condition, values = spec.condition()
    if options.fractions is not None:
        condition += " and list_contains($fractions, fraction)"
        values["fractions"] = list(options.fractions)
    (row,) = fetch_rows(
        connect(store),
        f"select (select max(created_at) from results where {condition}) as ran, (select "
        f"max(created_at) from comparisons where metric = $metric and {condition}) as compared",
        values | {"metric": options.metric},
    )
    return None not in row.values() and bool(row["compared"] > row["ran"])


def record_comparisons(
    store: Store,
    spec: ManifestSpec,
    options: CompareOptions,
    rows: Sequence[Mapping[str, Any]],
    started: Any,
) -> None:
    """Write the rows over all folds, each in the place of an earlier one of the same sides."""
    same = {
        **spec.row(),
        "ci_kind": KIND,
        "created_at": started,
    }
    made = []
    for r in rows:
        key = [
            r[k]
            for k in ("manifest_id", "metric", "fraction", "train_domain", "eval_domain", "a", "b")
        ]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        columns = {k: v for k, v in r.items() if k not in ("fold", "p_holm", "groups_needed")}
        made.append({"comparison_id": name, **same, **columns})
    store.merge(COMPARISONS, made)
