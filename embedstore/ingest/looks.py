"""Networks opened for an ingest, tried on patches, with the rows that the models table gets."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedstore.embed import Look
from embedstore.embeddings.identity import IDENTITY, check_same, entry_of, recorded_models
from embedstore.errors import EmbedstoreError
from embedstore.ingest.options import IngestOptions, asked_identity, weights_spec
from embedstore.ingest.variants import Variant
from embedstore.models.checkpoints import Weights
from embedstore.models.embedder import Embedder, choose_device, usual_batch
from embedstore.models.loading import load_embedder, record_of
from embedstore.models.pools import split_name
from embedstore.models.registry import RGB, Variation, trained_at
from embedstore.slides.patches import PatchGeometry
from embedstore.store import Store

Sample = Callable[[PatchGeometry], Any]
"""Gives some patches of a geometry, uint8 (n, height, width, 3)."""


@dataclass
class Opened:
    """The looks of an ingest, each model's row of the models table, and notes on checkpoints."""

    looks: list[Look] = field(default_factory=list)
    identities: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    networks: list[Embedder] = field(default_factory=list)

    @property
    def batch_size(self) -> int:
        """How many patches a pass takes where nothing else is asked for."""
        return min(usual_batch(network.device) for network in self.networks)

    def halved(self) -> list[str]:
        """Return a note on each network that took fewer patches a pass than it was given."""
        return [
            f"{n.name} did not fit into memory with more than {n.most} patches a pass: the rest "
            "went so"
            for n in self.networks
            if n.most is not None
        ]


def open_looks(
    store: Store,
    needed: Sequence[Variant],
    weights: dict[str, Weights | None],
    options: IngestOptions,
    sample: Sample,
) -> Opened:
    """Return each network once, with the fields and pools that are needed of it; none is written.

    weights are by the variants' names. EmbedstoreError where a pool cannot be, or where a name is
    recorded with something else.
    """
    opened = Opened()
    for registry_name in dict.fromkeys(v.registry_name for v in needed):
        of_model = [v for v in needed if v.registry_name == registry_name]
        _open_network(store, of_model, weights, options, sample, opened)
    return opened


def _open_network(
    store: Store,
    needed: Sequence[Variant],
    weights: dict[str, Weights | None],
    options: IngestOptions,
    sample: Sample,
    opened: Opened,
) -> None:
    recorded = recorded_models(store)
    first = next((v for v in needed if v.name in recorded), needed[0])
    found, record, varied = weights[first.name], recorded.get(first.name), options.variation
    if found is None:
        raise EmbedstoreError(
            f"no weights for {first.registry_name}; give --weights {first.registry_name}=PATH"
        )
    dtype = options.dtype
    if record is not None:  # a resumed ingest goes on as it began, on any machine
        dtype = record.dtype or dtype if dtype == "auto" else dtype
        is_alone = len(needed) == 1 and split_name(first.name) is None
        varied = Variation(
            varied.pooling or (record.pooling if is_alone else None),
            varied.mean or _rgb(record.mean),
            varied.std or _rgb(record.std),
        )
    spec = weights_spec(first.registry_name, options)
    embedder = load_embedder(
        options.name or first.registry_name,
        entry_of(first.registry_name, varied, spec),
        found,
        dtype=dtype,
        device=choose_device(options.device),
    )
    opened.networks.append(embedder)
    opened.notes += embedder.notes
    opened.notes += [
        f"{embedder.name} was trained at {embedder.entry.expected_mpp} um/px and is given {mpp:g}"
        for mpp in dict.fromkeys(v.geometry.mpp_out for v in needed)
        if not trained_at(embedder.entry, mpp)
    ]
    for geometry in dict.fromkeys(v.geometry for v in needed):
        _try(embedder, geometry, [v for v in needed if v.geometry == geometry], opened)
    for look in opened.looks:
        new = {name: pool for name, pool in look.pools.items() if name not in recorded}
        if look.network is embedder and new:
            embedder.settle_dtype(
                functools.partial(sample, look.geometry),
                may_change=dtype == "auto",
                pools=list(new.values()),
                mpp_out=look.geometry.mpp_out,
            )
            for name in new:
                opened.identities[name]["parity"] = embedder.parity
    for variant in needed:
        identity = opened.identities[variant.name]
        identity |= asked_identity(variant, options) | {"dtype": embedder.dtype}
        if embedder.dtype == "float32":
            identity["parity"] = 1.0
        if (of_name := recorded.get(variant.name)) is not None:
            check_same(variant.name, of_name, {k: identity[k] for k in IDENTITY})


def _try(
    embedder: Embedder, geometry: PatchGeometry, needed: Sequence[Variant], opened: Opened
) -> None:
    pools = {v.name: v.pool for v in needed}
    dims = embedder.check(geometry.size_px, list(pools.values()), geometry.mpp_out)
    opened.looks.append(Look(embedder, geometry, pools))
    for (name, _), dim in zip(pools.items(), dims, strict=True):
        opened.identities[name] = record_of(embedder) | {"model": name, "dim": dim}


def _rgb(values: Sequence[float] | None) -> RGB | None:
    return None if values is None else (values[0], values[1], values[2])
