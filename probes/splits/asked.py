"""Which splits of a manifest are asked for, made where they are missing."""

from collections.abc import Sequence
from typing import Protocol

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.splits.files import recorded_manifest
from probes.splits.manifests import Candidates, StoredSplit, candidates, ensure_splits
from probes.splits.spec import ManifestSpec


class Asked(Protocol):
    """Which splits of a manifest are asked for: see RunOptions."""

    @property
    def fractions(self) -> Sequence[float] | None:
        """None: the fraction 1, or all of a recorded manifest."""

    @property
    def folds(self) -> Sequence[int] | None:
        """None: the first five, or all of a recorded manifest."""

    @property
    def train_domains(self) -> Sequence[str] | None:
        """None: all."""

    @property
    def manifest(self) -> str | None:
        """The id of a recorded manifest, or None: what the spec makes."""


def splits_for(
    store: Store, spec: ManifestSpec, options: Asked
) -> tuple[Candidates, list[StoredSplit], list[str]]:
    """Return a manifest's annotations, the splits asked for, made where missing, and notes."""
    if options.manifest is None:
        found = candidates(store, spec)
        splits, notes = ensure_splits(
            store,
            found,
            folds=options.folds if options.folds is not None else range(5),
            fractions=options.fractions or (1.0,),
            domains=options.train_domains,
        )
        return found, splits, notes
    found, every = recorded_manifest(store, spec.dataset, options.manifest)
    asked = {
        "fold": options.folds,
        "fraction": options.fractions,
        "train_domain": options.train_domains,
    }
    splits = [s for s in every if all(v is None or s.row[k] in v for k, v in asked.items())]
    if not splits:
        raise EmbedstoreError(
            f"manifest {options.manifest} has no such split; it has: "
            + "; ".join(sorted(s.split_id.partition("/")[2] for s in every)[:20])
        )
    return found, splits, []
