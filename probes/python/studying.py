"""The verbs that ask a question of what is stored and record its numbers (view measures)."""

from collections.abc import Sequence

from embedstore.python.asked import Many, many, several
from embedstore.python.handle import Store, tables_of
from embedstore.python.progress import progress
from embedstore.python.rows import Rows, rows_of
from probes.methods.table import USUAL
from probes.splits.spec import ManifestSpec
from probes.studies.cells import LIMIT
from probes.studies.fusion import fusion as fused
from probes.studies.gap import gap as measured_gap
from probes.studies.likeness import likeness as alike
from probes.studies.measures import Measure, shown
from probes.studies.reproduce import reproduce as reproduced
from probes.studies.reproduce import rows_beside
from probes.studies.robustness import robustness as measured_robustness
from probes.studies.shots import SHOTS
from probes.studies.shots import shots as measured_shots

_SHOWN = (
    "metric",
    "model",
    "against",
    "factor",
    "split",
    "x",
    "value",
    "ci_low",
    "ci_high",
    "p_value",
    "p_holm",
    "n",
    "n_groups",
)


def measured(title: str, measures: Sequence[Measure], notes: Sequence[str]) -> Rows:
    """Return what a study found, with the columns of the view measures."""
    rows = shown(measures)
    kept = [k for k in _SHOWN if any(r[k] is not None for r in rows)]
    return rows_of(title, rows, notes, shown=[{k: r[k] for k in kept} for r in rows])


def gap(
    store: Store | str,
    dataset: str,
    *,
    model: Many = None,
    method: str = USUAL,
    seed: int = ManifestSpec.seed,
) -> Rows:
    """Tell what honest splits cost: AUROC by annotation, by slide, by case, in a new domain.

    See `probes gap --help`.
    """
    with progress("measuring", "steps") as bar:
        measures, notes = measured_gap(
            tables_of(store, write=True),
            dataset,
            models=many(model),
            method=method,
            seed=seed,
            on_progress=bar,
        )
    title = f"{dataset}: what honest splits cost"
    return measured(title, measures, [f"left out {n}" for n in notes])


def robustness(
    store: Store | str,
    dataset: str,
    *,
    by: Many = None,
    model: Many = None,
    limit: int = LIMIT,
) -> Rows:
    """Tell what embeddings say of slide, scanner, centre or species rather than of cells.

    See `probes robustness --help`.
    """
    with progress("measuring", "models") as bar:
        measures, notes = measured_robustness(
            tables_of(store, write=True),
            dataset,
            models=many(model),
            factors=many(by),
            limit=limit,
            on_progress=bar,
        )
    return measured(f"{dataset}: robustness", measures, notes)


def likeness(store: Store | str, dataset: str, *, model: Many = None, limit: int = 2_000) -> Rows:
    """Tell how alike models are: linear CKA, and how many nearest neighbours they share."""
    with progress("loading", "models") as bar:
        measures, notes = alike(
            tables_of(store, write=True),
            dataset,
            models=many(model),
            limit=limit,
            on_progress=bar,
        )
    return measured(f"{dataset}: likeness", measures, notes)


def fusion(
    store: Store | str,
    dataset: str,
    *,
    model: Many = None,
    method: str = USUAL,
    group_by: str = "slide",
    steps: int = 4,
) -> Rows:
    """Add models one by one to the best, side by side, while validation says that it gains.

    See `probes fusion --help`.
    """
    with progress("fitting", "fusions") as bar:
        measures, notes = fused(
            tables_of(store, write=True),
            dataset,
            models=many(model),
            method=method,
            group_by=group_by,
            steps=steps,
            on_progress=bar,
        )
    return measured(f"{dataset}: fusion", measures, notes)


def shots(
    store: Store | str,
    dataset: str,
    *,
    shots: int | Sequence[int] | None = None,
    unit: str = "cell",
    sets: int = 100,
    method: str = "prototype",
    group_by: str = "slide",
    model: Many = None,
) -> Rows:
    """Tell how many labels it takes: probes on a few cells a class, or on a few slides.

    See `probes shots --help`.
    """
    with progress("measuring", "models") as bar:
        measures, notes = measured_shots(
            tables_of(store, write=True),
            dataset,
            models=many(model),
            method=method,
            unit=unit,
            sizes=tuple(dict.fromkeys(several(shots) or SHOTS)),
            n_sets=sets,
            group_by=group_by,
            on_progress=bar,
        )
    return measured(f"{dataset}: {method} on few {unit}s", measures, notes)


def reproduce(
    store: Store | str, name: str, *, model: Many = None, dataset: str | None = None
) -> Rows:
    """Do what a publication did, with its splits and metrics, and tell how far from its numbers.

    The rows are means with an interval (against null), and differences from each published number,
    which details hold with the drift. See `probes reproduce --help`.
    """
    with progress("fitting", "steps") as bar:
        done = reproduced(
            tables_of(store, write=True),
            name,
            models=many(model),
            dataset=dataset,
            on_progress=bar,
        )
    return rows_of(name, shown(done.measures), done.notes, shown=rows_beside(done.measures))
