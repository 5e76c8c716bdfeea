"""Who competes: a method with its parameters and a model."""

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from embedstore.errors import UsageError
from probes.scores.recorded import RunRow

E2E = "e2e"
"""The method of what was trained end to end: see e2e.run, which probes do not import."""


@dataclass(frozen=True)
class Side:
    """Who competes: METHOD:MODEL, or METHOD+VARIANT:MODEL, and of what kind its runs are.

    A variant is a set of views, how a network was adapted, that its pool was chosen on validation,
    how embeddings were corrected, or what a training adds: uni+d4:virchow2, e2e+lora:virchow2,
    uni+best:virchow2, uni+centre-slide:virchow2, e2e+mixup0.2-tta:resnet50.
    params and weights are those recorded; a side that a user names has none: compare it with
    `named`. What tells weights apart is their SHA-256, none where embeddings were imported; weights
    is what they were called when a run was made.
    """

    method: str
    model: str
    variant: str | None = None
    params: str = "{}"
    weights: str = field(default="", compare=False)
    weights_sha256: str = ""

    @classmethod
    def parse(cls, text: str) -> "Side":
        """Return the side that METHOD:MODEL names; a model's name may hold colons itself."""
        method, colon, model = text.partition(":")
        if not (method and colon and model):
            raise UsageError(f"'{text}' is not METHOD:MODEL, for example uni:virchow2")
        method, _, variant = method.partition("+")
        return cls(method, model, variant or None)

    @classmethod
    def of(cls, row: RunRow) -> "Side":
        """Return the side that a row of results belongs to."""
        return cls(
            row.method,
            row.model,
            variant_of(row.params),
            row.params,
            row.weights or "",
            row.weights_sha256 or "",
        )

    @classmethod
    def named(cls, row: RunRow) -> "Side":
        """Return the side of a row as a user names it: without what only tells its runs apart."""
        return cls(row.method, row.model, variant_of(row.params))

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.method}{f'+{self.variant}' if self.variant else ''}:{self.model}"

    @property
    def views(self) -> str | None:
        """The views it was trained on and averaged over, if any."""
        views: str | None = json.loads(self.params).get("views")
        return views

    @property
    def pool(self) -> str | None:
        """How its pool and field of view were chosen, None where they are the model's."""
        pool: str | None = json.loads(self.params).get("pool")
        return pool

    @property
    def correction(self) -> str | None:
        """How its embeddings were corrected, None where they were not."""
        return _correction(json.loads(self.params))

    @property
    def extras(self) -> list[str]:
        """What its training adds to the usual recipe, if anything: focal2, mixup0.2, tta, ..."""
        return _extras(json.loads(self.params))

    @property
    def uncorrected(self) -> "Side":
        """The side, as a user names it, that is the same but for the correction."""
        variant = (self.variant or "").removesuffix(self.correction or "").rstrip("-")
        return Side(self.method, self.model, variant or None)

    @property
    def is_transductive(self) -> bool:
        """Whether unlabelled test annotations had a say in that."""
        return bool(json.loads(self.params).get("transductive"))

    @property
    def is_random(self) -> bool:
        """Whether its weights are random."""
        return self.weights == "random"

    @property
    def is_e2e(self) -> bool:
        """Whether it was trained end to end."""
        return self.method == E2E


K = TypeVar("K", bound=Hashable)


def ranked(cells: Mapping[K, Mapping[tuple[Any, ...], float]]) -> list[K]:
    """Return the keys, best first: by the mean of their values at the largest fraction of all.

    cells: values by (fraction, ...). Those with fewer cells there come after those with more: a few
    splits alone may be the easy ones.
    """
    largest = max(k[0] for each in cells.values() for k in each)
    values = {who: [v for k, v in each.items() if k[0] == largest] for who, each in cells.items()}
    able = [who for who in cells if values[who]]
    return sorted(able, key=lambda who: (-len(values[who]), -float(np.mean(values[who]))))


def variant_of(params: str) -> str | None:
    """Return what tells kinds of one method apart, by its params: views, adaptation, pool.

    None for the usual kind: embeddings of the patches as they are, or all of a network trained.
    """
    values = json.loads(params)
    adapt = values.get("adapt")
    parts = [values.get("views"), None if adapt == "full" else adapt, values.get("pool")]
    parts += [_correction(values), *_extras(values)]
    return "-".join(p for p in parts if p) or None


def _extras(params: Mapping[str, Any]) -> list[str]:
    """Return what a training adds to the usual recipe: soft, focal2, weigh.domain, mixup0.2, ..."""
    parts = ["soft"] if params.get("soft_labels") else []
    parts += [f"{k}{params[k]:g}" for k in ("focal", "mixup", "hed") if params.get(k)]
    parts += [f"weigh.{params['weigh']}"] if params.get("weigh") else []
    return parts + (["tta"] if params.get("tta") else [])


def _correction(params: Mapping[str, Any]) -> str | None:
    """Return the name of a correction: centre-slide, or centre-slide-transductive."""
    if not (said := params.get("correct")):
        return None
    return str(said).replace(":", "-") + "-transductive" * bool(params.get("transductive"))


def method_of(r: RunRow) -> str:
    """Return a method's name, with its variant and target where they are not the usual ones."""
    variant = variant_of(r.params)
    return (
        str(r.method)
        + (f"+{variant}" if variant else "")
        + (f", target {r.target}" if r.target != "label" else "")
    )
