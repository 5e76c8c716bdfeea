"""What an ingest is asked for, checked, and what it reports."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedstore.cluster import Cluster
from embedstore.embed import Waited
from embedstore.errors import UsageError
from embedstore.models.pools import OWN
from embedstore.models.registry import NO_VARIATION, Variation

if TYPE_CHECKING:
    from embedstore.ingest.variants import Variant


OnProgress = Callable[[int, int, Waited], None]
"""Is told how many vectors of how many there are, and what was waited for."""


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a dataset's slides, counted from 1; all together are all of them."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return what N/OF says; UsageError for anything else."""
        number, slash, count = text.partition("/")
        if not (slash and number.strip().isdecimal() and count.strip().isdecimal()):
            raise UsageError(f"--shard '{text}' is not of the form N/OF, such as 3/16")
        shard = cls(int(number), int(count))
        if not 1 <= shard.number <= shard.count:
            raise UsageError(
                f"--shard {text}: shards are counted from 1 to the number of them; the first is "
                f"1/{max(shard.count, 1)}"
            )
        return shard

    def __str__(self) -> str:
        """Say it as it was given."""
        return f"{self.number}/{self.count}"

    def of(self, sizes: Mapping[str, int]) -> list[str]:
        """Return the slides of this shard, of all with their sizes.

        The largest first, each to the shard that has least so far: what a slide's shard is depends
        on nothing but these sizes.
        """
        heap = [(0, n) for n in range(1, self.count + 1)]
        mine = []
        for slide, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
            held, n = heapq.heappop(heap)
            heapq.heappush(heap, (held + size, n))
            if n == self.number:
                mine.append(slide)
        return mine


@dataclass(frozen=True)
class IngestOptions:
    """How patches are cut and embedded: see `embedstore ingest --help`.

    cluster: where the work is spread; None for this process alone.
    """

    weights: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    variation: Variation = NO_VARIATION
    views: str | None = None
    patch_px: int = 224
    mpp_out: Sequence[float] = (0.25,)
    pools: Sequence[str] = ()
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    limit: int | None = None
    patch_cache: bool = True
    shard: Shard | None = None
    cluster: Cluster | None = None


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
    waited: what the embedding waited for.
    """

    dataset: str
    models: list[ModelReport]
    n_annotations: int
    n_off_slide: int
    set_aside: dict[str, str]
    seconds: float = 0.0
    n_cached: int = 0
    notes: list[str] = field(default_factory=list)
    waited: Waited = field(default_factory=Waited)

    def rows(self, *, with_views: bool) -> list[dict[str, Any]]:
        """Return a row a model, as the command prints it."""
        return [
            {
                "dataset": self.dataset,
                "model": r.model,
                "weights": r.weights,
                "dtype": r.dtype,
                "parity": r.parity,
                "there_before": r.n_before,
                "embedded": r.n_embedded,
                "not_embedded": r.n_left,
                **({"views": r.n_views} if with_views else {}),
            }
            for r in self.models
        ]


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take, before it starts: counts, and bytes on disk and in memory.

    in_memory: patches that wait to be embedded at most, the networks aside.
    """

    n_models: int
    n_networks: int
    n_fields: int
    n_annotations: int
    vectors: int
    kept_patches: int
    in_memory: int

    def __str__(self) -> str:
        """Say it in one line."""
        kept = (
            f", about {self.kept_patches / 1e6:,.0f} MB of patches kept (--no-patch-cache keeps "
            "none)"
        ) * (self.kept_patches > 0)
        return (
            f"{self.n_models} models of {self.n_networks} networks at {self.n_fields} fields of "
            f"view, {self.n_annotations:,} annotations: {self.vectors / 1e6:,.1f} MB of embeddings"
            f"{kept}; up to {self.in_memory / 1e6:,.0f} MB of patches wait in memory"
        )


class Interrupted(Exception):  # noqa: N818  (not an error: the work done is safe)
    """Raised after Ctrl-C once everything embedded so far is stored; carries the report."""

    def __init__(self, report: IngestReport) -> None:
        """Hold the report of what was done."""
        super().__init__()
        self.report = report


def short_names(registry_name: str) -> list[str]:
    """Return what --weights may call timm:NAME or hf-hub:OWNER/NAME for short."""
    return [registry_name.split(":", 1)[1]] if ":" in registry_name else []


def weights_spec(registry_name: str, options: IngestOptions) -> str | None:
    """Return what --weights says of a model."""
    return next(
        (
            options.weights[k]
            for k in (registry_name, *short_names(registry_name))
            if k in options.weights
        ),
        None,
    )


def asked_identity(variant: "Variant", options: IngestOptions) -> dict[str, Any]:
    """Return what the user states of a model's record; what is left open is not in it."""
    asked: dict[str, Any] = {
        "registry_name": variant.registry_name,
        "patch_px": variant.geometry.size_px,
        "mpp_out": variant.geometry.mpp_out,
    }
    varied = options.variation
    decided = {
        "dtype": None if options.dtype == "auto" else options.dtype,
        "pooling": varied.pooling if variant.pool == OWN else variant.pool,
        "mean": varied.mean and list(varied.mean),
        "std": varied.std and list(varied.std),
    }
    return asked | {k: v for k, v in decided.items() if v is not None}
