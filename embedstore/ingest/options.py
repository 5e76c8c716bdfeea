"""What an ingest is asked for, checked, and what it reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.identity import (
    check_model_name,
)
from embedstore.models.registry import NO_VARIATION, Variation, check_name
from embedstore.slides.patches import VIEW_SETS
from embedstore.slides.slide import is_plausible_mpp
from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect


@dataclass(frozen=True)
class IngestOptions:
    """How patches are cut and embedded: see `embedstore ingest --help`."""

    weights: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    variation: Variation = NO_VARIATION
    views: str | None = None
    patch_px: int = 224
    mpp_out: float = 0.25
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    limit: int | None = None
    patch_cache: bool = True


@dataclass
class ModelReport:
    """What one model has after an ingest; n_left: on its slide, not embedded yet.

    n_views counts the views embedded beside; parity is the lowest cosine to float32 seen.
    """

    model: str
    n_before: int = 0
    n_embedded: int = 0
    n_left: int = 0
    n_views: int = 0
    parity: float | None = None
    dtype: str = ""
    weights: str = ""


@dataclass
class IngestReport:
    """What an ingest did: one ModelReport a model, the slides set aside (name: why), seconds.

    n_cached: patches that were read from slides and kept. notes: what was done with checkpoints.
    """

    dataset: str
    models: list[ModelReport]
    n_annotations: int
    n_off_slide: int
    set_aside: dict[str, str]
    seconds: float = 0.0
    n_cached: int = 0
    notes: list[str] = field(default_factory=list)


class Interrupted(Exception):  # noqa: N818  (not an error: the work done is safe)
    """Raised after Ctrl-C once everything embedded so far is stored; carries the report."""

    def __init__(self, report: IngestReport) -> None:
        """Hold the report of what was done."""
        super().__init__()
        self.report = report


def checked_names(
    store: Store,
    dataset: str,
    models: Sequence[str],
    options: IngestOptions,
    recorded: Mapping[str, Any],
) -> dict[str, str]:
    """Return the key under which each model's embeddings are stored; all names are checked."""
    check_dataset(store, connect(store), dataset)
    if not models:
        raise EmbedstoreError("name at least one model with --model")
    if options.name is not None and len(models) != 1:
        raise UsageError("--as NAME goes with exactly one --model")
    for model in models:
        check_name(model)
        check_model_name(options.name or model, recorded)
    if unknown := [w for w in options.weights if not _names(w, models)]:
        raise UsageError(
            f"--weights names {', '.join(unknown)}, but no --model of that name is given; models: "
            f"{', '.join(models)}"
        )
    if options.variation != NO_VARIATION and len(models) != 1:
        raise UsageError("--pooling, --mean and --std go with exactly one --model")
    options.variation.check()
    if options.views is not None and options.views not in VIEW_SETS:
        raise UsageError(f"unknown --views '{options.views}'; allowed: {', '.join(VIEW_SETS)}")
    if not 16 <= options.patch_px <= 2048:
        raise UsageError(f"--patch-px {options.patch_px} is not between 16 and 2048")
    if not is_plausible_mpp(options.mpp_out):
        raise UsageError(f"--mpp-out {options.mpp_out:g} is not between 0.05 and 2.0 um/px")
    return {m: options.name or m for m in models}


def _names(key: str, models: Sequence[str]) -> bool:
    return any(key in (m, *_short(m)) for m in models)


def _short(registry_name: str) -> list[str]:
    """Return what --weights may call timm:NAME or hf-hub:OWNER/NAME for short."""
    return [registry_name.split(":", 1)[1]] if ":" in registry_name else []


def weights_spec(registry_name: str, options: IngestOptions) -> str | None:
    """Return what --weights says of a model."""
    return next(
        (
            options.weights[k]
            for k in (registry_name, *_short(registry_name))
            if k in options.weights
        ),
        None,
    )


def asked_identity(registry_name: str, options: IngestOptions) -> dict[str, Any]:
    """Return what the user states of a model's record; what is left open is not in it."""
    asked: dict[str, Any] = {
        "registry_name": registry_name,
        "patch_px": options.patch_px,
        "mpp_out": options.mpp_out,
    }
    varied = options.variation
    decided = {
        "dtype": None if options.dtype == "auto" else options.dtype,
        "pooling": varied.pooling,
        "mean": varied.mean and list(varied.mean),
        "std": varied.std and list(varied.std),
    }
    return asked | {k: v for k, v in decided.items() if v is not None}
