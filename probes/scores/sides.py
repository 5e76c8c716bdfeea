"""Who competes: a method with its parameters and a model."""

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from embedstore.errors import EmbedstoreError


@dataclass(frozen=True)
class Side:
    """One side of a comparison: METHOD:MODEL, or METHOD+VARIANT:MODEL.

    A variant is a set of views, or how a network was adapted: uni+d4:virchow2, e2e+lora:virchow2.
    """

    method: str
    model: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Side":
        """Return the side that METHOD:MODEL names; a model's name may hold colons itself."""
        method, colon, model = text.partition(":")
        if not (method and colon and model):
            raise EmbedstoreError(f"'{text}' is not METHOD:MODEL, for example uni:virchow2")
        method, _, variant = method.partition("+")
        return cls(method, model, variant or None)

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.method}{f'+{self.variant}' if self.variant else ''}:{self.model}"

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> "Side":
        """Return the side that a row of results belongs to."""
        return cls(run["method"], run["model"], variant_of(run["params"]))


K = TypeVar("K", bound=Hashable)


def ranked(cells: Mapping[K, Mapping[tuple[Any, ...], float]]) -> list[K]:
    """Return the keys, best first: by the mean of their values at the largest fraction of all.

    cells: values by (fraction, ...). Those with fewer cells there come after those with more: a few
    splits alone may be the easy ones.
    """
    top = max(k[0] for each in cells.values() for k in each)
    at = {who: [v for k, v in each.items() if k[0] == top] for who, each in cells.items()}
    able = [who for who in cells if at[who]]
    return sorted(able, key=lambda w: (-len(at[w]), -float(np.mean(at[w]))))


def variant_of(params: str) -> str | None:
    """Return what tells kinds of one method apart, by its recorded params: views, or adaptation.

    None for the usual kind: embeddings of the patches as they are, or all of a network trained.
    """
    known_params = json.loads(params)
    adapt = known_params.get("adapt")
    return known_params.get("views") or (None if adapt == "full" else adapt)


def method_of(r: Mapping[str, Any]) -> str:
    """Return a method's name, with its variant and target where they are not the usual ones."""
    variant = variant_of(r["params"])
    return (
        str(r["method"])
        + (f"+{variant}" if variant else "")
        + (f", target {r['target']}" if r["target"] != "label" else "")
    )
