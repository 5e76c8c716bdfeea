"""What a model's name stands for: recorded, checked, and how to get what it lacks."""

from collections.abc import Iterable, Mapping
from typing import Any

from embedstore.errors import EmbedstoreError
from embedstore.models.checkpoints import Weights, find_weights
from embedstore.models.pools import split_name, variant_name
from embedstore.models.registry import NO_VARIATION, REGISTRY, ModelEntry, Variation, vary
from embedstore.store import Store
from embedstore.store.records import ModelRow, fetch_records
from embedstore.store.sql import UNIONS, connect_to, views_name
from embedstore.store.views import VIEWS

IDENTITY = (
    "arch",
    "dim",
    "pooling",
    "dtype",
    "patch_px",
    "mpp_out",
    "weights_sha256",
    "mean",
    "std",
)
"""What a model's name stands for."""


def recorded_models(store: Store) -> dict[str, ModelRow]:
    """Return what is recorded of each model, by name."""
    rows = fetch_records(connect_to(store, "models"), ModelRow, "from _models")
    return {r.model: r for r in rows}


def entry_of(model: str, variation: Variation, spec: str | None) -> ModelEntry:
    """Return the entry of a model; needs torch only where timm or the hub must be asked."""
    variation.check()
    if model in REGISTRY:
        return vary(model, REGISTRY[model], variation)
    from embedstore.models.loading import resolve

    return resolve(model, variation, spec)


def weights_for(
    registry_name: str,
    model: str,
    record: ModelRow | None,
    asked: Mapping[str, Any],
    spec: str | None,
    is_open: bool,
) -> Weights | None:
    """Return the weights that spec means; None where nothing is to embed and none were asked for.

    record is what is recorded of the name, asked those columns of it that this call decides,
    is_open whether anything is missing. A name stands for one set of weights, pooling, dtype and
    geometry, so what is asked for must agree with what is recorded, also when nothing is missing.
    """
    if record is not None:
        if record.arch == IMPORTED:
            raise EmbedstoreError(
                f"the embeddings of '{model}' were imported ({record.weights}) and what made "
                "them is not known, so none can be added from slides; store others under --as NAME"
            )
        check_same(model, record, asked)
        if spec is None and record.weights == "random":
            spec = "random"  # going on with what the name stands for
    if spec is None and not is_open:
        return None
    # Only timm and the hub know where the weights of their models lie.
    entry = (
        entry_of(registry_name, NO_VARIATION, spec)
        if spec in (None, "hub")
        else REGISTRY.get(registry_name)
    )
    weights = find_weights(
        registry_name,
        spec or (entry.default_weights if entry else "hub"),
        entry.hub if entry else "",
        entry.hub_file if entry else None,
    )
    if record is not None and not (weights.path is None and record.weights == "random"):
        check_same(model, record, {"weights_sha256": weights.sha256})
    return weights


def check_same(
    name: str, record: ModelRow, asked: Mapping[str, Any], *, other: str = "--as NAME"
) -> None:
    """Raise EmbedstoreError where what is asked differs from what the name is recorded with.

    other is the option that the message points to.
    """
    differ = [
        f"{k} {stored} (asked: {v})"
        for k, v in asked.items()
        if (stored := getattr(record, k)) != v
    ]
    if differ:
        raise EmbedstoreError(
            f"model '{name}' is recorded with {', '.join(differ)}; a name stands for one set of "
            f"weights, pooling, dtype and patch geometry: store the other under {other}"
        )


IMPORTED = "imported"
"""Arch and pooling of a model whose embeddings came from a file that does not say what made it."""


def how_to_embed(store: Store, dataset: str, model: str, views: str | None = None) -> str:
    """Return the command that gives a dataset the embeddings, or views, that a model lacks."""
    record = recorded_models(store).get(model)
    imported = record is not None and record.arch == IMPORTED
    if imported and views is None:
        return f"embedstore import {dataset} FILE --model {model}"
    # What is imported has no views: they come from slides, under another name.
    name = "MODEL --as NAME" if imported else " ".join(model_words(model, record))
    return f"embedstore ingest {dataset} --model {name}" + (f" --views {views}" if views else "")


def model_words(model: str, record: ModelRow | None) -> list[str]:
    """Return what --model and --as take for what is stored, or asked for, under a name."""
    registry_name = (record and record.registry_name) or None
    variant = split_name(model)
    base = variant[0] if variant else model
    if registry_name is None or registry_name == base:
        return [model]
    asked = variant_name(registry_name, *variant[1:]) if variant else registry_name
    return [asked, "--as", base]


def check_model_name(
    name: str, recorded: Iterable[str] = (), *, other: str = "another name with --as NAME"
) -> None:
    """Raise EmbedstoreError for a name that would hide a view or, to SQL, equal another model's.

    other is what the message says to choose.
    """
    if same_name := [r for r in recorded if r != name and r.casefold() == name.casefold()]:
        raise EmbedstoreError(
            f"there is a model '{same_name[0]}' already, and SQL cannot distinguish it from "
            f"'{name}'; choose {other}"
        )
    folded = name.casefold()
    taken = folded in VIEWS or folded in UNIONS or folded.endswith(views_name(""))
    if taken or name.startswith("_") or not name.strip():
        raise EmbedstoreError(
            f"'{name}' cannot name a model, since SQL has a view of that name; choose {other}"
        )
