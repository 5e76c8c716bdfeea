"""The verbs that judge what is recorded: compare, verify, predict, report."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from embedstore.files.at_hand import as_delivered, delivered
from embedstore.files.targets import folder_target
from embedstore.python.asked import Many, many, several
from embedstore.python.handle import Store, tables_of
from embedstore.python.progress import progress
from embedstore.python.rows import Rows, rows_of
from probes.reports import ABOUT
from probes.reports import report as write_report
from probes.runs.predict import predict as scores_of
from probes.scores.comparisons import CompareOptions
from probes.scores.sides import Side
from probes.splits.spec import ManifestSpec, spec_of
from probes.studies.compare import compare as tested
from probes.studies.verify import verify as checked


def compare(
    store: Store | str,
    dataset: str,
    *,
    scheme: str = ManifestSpec.scheme,
    group_by: str = ManifestSpec.group_by,
    stratify: str = ManifestSpec.stratify,
    size_matched: bool = False,
    where: str | None = ManifestSpec.where,
    seed: int = ManifestSpec.seed,
    a: str | None = None,
    b: Many = None,
    fraction: float | Sequence[float] | None = None,
    metric: str = "auroc",
) -> Rows:
    """Test whether two methods, each METHOD:MODEL, differ on the same test annotations.

    a: the best by default; b: all others by default. Returns the rows over all folds (fold null)
    and of each fold; a notebook shows the former. See `probes compare --help`.
    """
    spec = spec_of(dataset, scheme, group_by, stratify, where, seed, size_matched=size_matched)
    sides = [Side.parse(text) for text in many(b) or ()]
    with progress("comparing", "pairs") as bar:
        rows, notes = tested(
            tables_of(store, write=True),
            spec,
            None if a is None else Side.parse(a),
            sides,
            CompareOptions(several(fraction), metric),
            bar,
        )
    whole = [r for r in rows if r["fold"] is None]
    kept = [k for k in rows[0] if any(r[k] is not None for r in whole)]
    shown = [{k: r[k] for k in kept if k not in ("metric", "manifest_id")} for r in whole]
    return rows_of(f"{dataset}: difference in {metric}", rows, notes, shown=shown)


def verify(store: Store | str, run_id: str) -> Rows:
    """Derive a recorded result again from stored vectors, manifest and code; a row per check.

    same is False where something differs. See `probes verify --help`.
    """
    checks = [asdict(c) for c in checked(tables_of(store), run_id)]
    wrong = sum(not c["same"] for c in checks)
    return rows_of(f"run {run_id}", checks, [f"{wrong} of {len(checks)} checks differ"])


def predict(store: Store | str, run_id: str, dataset: str) -> Rows:
    """Score a dataset with a recorded probe: annotation_id, label, score (its probability)."""
    scores = scores_of(tables_of(store), run_id, dataset)
    return rows_of(f"{dataset}: scores of run {run_id}", scores)


def report(
    store: Store | str,
    dataset: Many = None,
    *,
    output: str | Path,
    overwrite: bool = False,
) -> Rows:
    """Write what is recorded as a page with figures and tables; a row per file, the page first.

    dataset: all of the store by default. See `probes report --help`.
    """
    to = folder_target(str(output), own=ABOUT, overwrite=overwrite)
    with delivered(to) as folder, progress("reporting", "sections") as bar:
        rows = write_report(tables_of(store), many(dataset) or [], folder, bar)
    return rows_of(str(rows[0]["title"]), as_delivered(rows, folder, str(output)))
