"""Which splits of a manifest are asked for, made where they are missing."""

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.splits.candidates import Candidates, candidates
from probes.splits.imported import recorded_manifest
from probes.splits.manifests import StoredSplit, audited, ensure_splits
from probes.splits.newest import make_newest
from probes.splits.spec import Asked, ManifestSpec


def splits_for(
    store: Store, spec: ManifestSpec, asked: Asked
) -> tuple[Candidates, list[StoredSplit], list[str]]:
    """Return a manifest's annotations, the splits asked for, made where missing, and notes."""
    if asked.manifest is None:
        manifest = candidates(store, spec)
        splits, notes = ensure_splits(
            store,
            manifest,
            folds=asked.folds if asked.folds is not None else range(5),
            fractions=asked.fractions or (1.0,),
            domains=asked.train_domains,
        )
        make_newest(store, spec, manifest.manifest_id)
        return manifest, splits, notes
    manifest, every = recorded_manifest(store, spec.dataset, asked.manifest)
    asked.check(spec, ManifestSpec.of(every[0].row))
    kept = {
        "fold": asked.folds,
        "fraction": asked.fractions,
        "train_domain": asked.train_domains,
    }
    splits = [s for s in every if all(v is None or getattr(s.row, k) in v for k, v in kept.items())]
    if not splits:
        raise EmbedstoreError(
            f"manifest {asked.manifest} has no such split; it has: "
            + "; ".join(sorted(s.split_id.partition("/")[2] for s in every)[:20])
        )
    return manifest, audited(store, manifest, splits), []
