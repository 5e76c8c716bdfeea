"""Networks by where they look: the recorded runs of each with its pools and fields of view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.models.pools import split_name
from probes.reports.data import Facts, by_side
from probes.scores.best_pool import BEST, network_of
from probes.scores.recorded import ResultRow
from probes.scores.results import from_null
from probes.scores.sides import Side
from probes.splits.spec import ManifestSpec


@dataclass(frozen=True)
class Look:
    """A network's runs with one pool at one field; pool and width (um) as far as recorded."""

    side: Side
    pool: str
    field_um: float | None
    values: Mapping[tuple[Any, ...], ResultRow]

    @property
    def network(self) -> str:
        """The plain name of the network."""
        return network_of(self.side.model)

    @property
    def is_plain(self) -> bool:
        """Whether it is the network as it is usually taken."""
        return split_name(self.side.model) is None

    @property
    def mean(self) -> float:
        """The mean AUROC over its splits."""
        return float(np.mean([from_null(r.value) for r in self.values.values()]))


Key = tuple[str, str]
"""A network and a method."""


SHIFTED = "jitter"
"""The views of patches that are shifted, all alike in every class."""


@dataclass(frozen=True)
class Looks:
    """What competes: models as they are, each network's chosen on validation, models shifted."""

    looks: Sequence[Look]
    best: Mapping[Key, Look]
    shifted: Mapping[tuple[str, str], Look]


def looks_of(facts: Facts, c: ManifestSpec) -> Looks:
    """Return what competes at the largest fraction of a condition."""
    scored = [r for r in facts.rows(c, "auroc") if r.value is not None]
    top = max((r.fraction for r in scored), default=None)
    looks, best, shifted = list[Look](), dict[Key, Look](), dict[tuple[str, str], Look]()
    for side, of in by_side([r for r in scored if r.fraction == top]).items():
        if side.is_e2e or side.views not in (None, SHIFTED):
            continue
        record, named = facts.models.get(side.model), split_name(side.model)
        mpp = record.mpp_out if record and record.mpp_out else named[1] if named else None
        pool = named[2] if named else (record and record.pooling) or "own"
        width = record.patch_px * mpp if record and record.patch_px and mpp else None
        look = Look(side, pool, width, {(r.fold, r.eval_domain): r for r in of})
        if side.pool == BEST and not side.views:
            best[look.network, side.method] = look
        elif side.views and not side.pool:
            shifted[side.model, side.method] = look
        elif not side.pool:
            looks.append(look)
    return Looks(looks, best, shifted)


def swept_of(looks: Sequence[Look]) -> dict[Key, list[Look]]:
    """Return the networks that look in several ways, the plain way first."""
    each: dict[Key, list[Look]] = {}
    for look in sorted(looks, key=lambda k: (not k.is_plain, k.field_um or 0, k.pool)):
        each.setdefault((look.network, look.side.method), []).append(look)
    return {key: of for key, of in each.items() if len(of) > 1}


def interval_of(facts: Facts, look: Look, plain: Look) -> dict[str, float | None]:
    """Return the recorded interval of a look less the plain one."""
    shared = look.values.keys() & plain.values.keys()
    compared = None
    if look is not plain and shared:
        runs = [each.values[k] for each in (look, plain) for k in shared]
        compared = facts.comparison(str(look.side), str(plain.side), "all", runs)
    both = (compared.ci_low, compared.ci_high) if compared else (None, None)
    return dict(zip(("ci_low", "ci_high"), both, strict=True))
