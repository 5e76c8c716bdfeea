"""The verb `models`: the registry as rows, and what of it can be had from here."""

from collections.abc import Callable
from typing import Any

from embedstore.models.checkpoints import availability
from embedstore.models.pins import PINS
from embedstore.models.registry import REGISTRY


def registered() -> list[dict[str, Any]]:
    """Return a row per model of the registry."""
    return [
        {
            "model": name,
            "arch": e.arch,
            "n_params": e.n_params,
            "dim": e.dim,
            "pooling": e.pooling,
            "licence": e.licence,
            "gated": e.gated,
            "verified": e.verified,
            "expected_mpp": e.expected_mpp,
            "trained_on": ", ".join(e.corpora),
            "revision": PINS[name].revision[:8] if name in PINS else "",
            "default_weights": e.default_weights,
            "hub": e.hub,
        }
        for name, e in REGISTRY.items()
    ]


def available(
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Return a row per model of the registry: where its weights come from, and how its pin is."""
    rows = []
    for n, (name, e) in enumerate(REGISTRY.items(), start=1):
        origin, of_pin = availability(e.default_weights, e.hub, e.hub_file, PINS.get(name))
        row = {"model": name, "gated": e.gated, "weights": origin, "pin": of_pin}
        rows.append(row | {"hub": e.hub})
        on_progress(n, len(REGISTRY))
    return rows
