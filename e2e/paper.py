"""The verb `paper`: run what is missing of the paper's two experiments, then report.

It is here and not in probes since it may train as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from e2e.recipe import registry_name_of
from e2e.run import METHOD, Listener, TrainOptions
from e2e.run import run as train
from embedstore.embeddings.identity import how_to_embed
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import connect, embedded_models, fetch_rows, literal
from probes.reports import report
from probes.runs import RunOptions, run
from probes.scores.comparisons import CompareOptions, is_compared
from probes.splits.candidates import candidates
from probes.splits.manifests import StoredSplit, ensure_splits
from probes.splits.spec import Asked, ManifestSpec
from probes.studies.compare import compare

PROBE = "uni"
"""The paper's probe."""
EXPERIMENTS = {"monte-carlo": "Figure 1", "cross-domain": "Table 2, Figure 2"}
FOLDS = range(5)


@dataclass(frozen=True)
class PaperOptions:
    """What takes part: models (None: all that a dataset has), and what is trained, if anything."""

    models: Sequence[str] | None = None
    trained: TrainOptions | None = None
    group_by: str = "annotation"
    seed: int = 42


@dataclass(frozen=True)
class Step:
    """One experiment on one dataset by one way: its splits, and how many of its runs are missing.

    seconds is a guess from recorded runs of the same dataset and scheme, None where there is none.
    """

    spec: ManifestSpec
    method: str
    models: Sequence[str]
    splits: Sequence[StoredSplit]
    n_missing: int
    seconds: float | None

    @property
    def fractions(self) -> list[float]:
        """The fractions that the dataset is large enough for."""
        return sorted({float(s.row.fraction) for s in self.splits})

    def row(self) -> dict[str, Any]:
        """Return it as a line of the plan."""
        return {
            "dataset": self.spec.dataset,
            "for": EXPERIMENTS[self.spec.scheme],
            "scheme": self.spec.scheme,
            "method": self.method,
            "models": ", ".join(self.models),
            "fractions": ", ".join(f"{f:g}" for f in self.fractions),
            "runs": len(self.splits) * len(self.models),
            "missing": self.n_missing,
            "minutes": None if self.seconds is None else round(self.seconds / 60, 1),
        }


@dataclass(frozen=True)
class Plan:
    """The steps in their order on these datasets, and what is left out and why."""

    datasets: Sequence[str]
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PaperListener(Listener):
    """As the listener of a training; the others count fits, pairs and sections of the report."""

    fitting: Callable[[int, int], None] = lambda done, total: None
    comparing: Callable[[int, int], None] = lambda done, total: None
    reporting: Callable[[int, int], None] = lambda done, total: None


def plan(store: Store, datasets: Sequence[str], options: PaperOptions) -> Plan:
    """Return what both experiments take on these datasets; manifests are made where missing.

    Fractions and domains that are too small are left out by name. EmbedstoreError where a model has
    no embeddings of a dataset; all of them are named at once.
    """
    models = {d: _models(store, d, options) for d in dict.fromkeys(datasets)}
    made = Plan(datasets)
    for dataset, names in models.items():
        for scheme in EXPERIMENTS:
            spec = ManifestSpec(dataset, scheme, options.group_by, seed=options.seed)
            try:
                splits, notes = _splits(store, spec)
            except EmbedstoreError as e:
                made.notes.append(f"{EXPERIMENTS[scheme]} of {dataset} is left out: {e}")
                continue
            made.notes.extend(f"{dataset}: {n}" for n in notes)
            made.steps.append(_step(store, spec, PROBE, names, splits))
            if options.trained is not None:
                registry_name = registry_name_of(options.trained.backbone)
                made.steps.append(_step(store, spec, METHOD, [registry_name], splits))
    return made


def _splits(store: Store, spec: ManifestSpec) -> tuple[list[StoredSplit], list[str]]:
    """Return an experiment's splits and notes; EmbedstoreError where the dataset is too small."""
    manifest = candidates(store, spec)
    if spec.scheme == "monte-carlo":
        return ensure_splits(store, manifest, folds=FOLDS, fractions=None)
    if len(set(manifest.pool.domains)) < 2:
        raise EmbedstoreError("it has one domain, so there is no other to test on")
    return ensure_splits(store, manifest, folds=FOLDS, fractions=(1.0,))


def _models(store: Store, dataset: str, options: PaperOptions) -> list[str]:
    have = embedded_models(connect(store), dataset)
    lack = [m for m in options.models or have if m not in have]
    if lack or not have:
        lines = "\n".join(f"  {how_to_embed(store, dataset, m)}" for m in lack or ["MODEL"])
        raise EmbedstoreError(
            f"'{dataset}' has no embeddings of {', '.join(lack) or 'any model'}; make them with\n"
            f"{lines}"
        )
    return list(options.models or have)


def _step(
    store: Store,
    spec: ManifestSpec,
    method: str,
    models: Sequence[str],
    splits: Sequence[StoredSplit],
) -> Step:
    names = ", ".join(literal(m) for m in models)
    done = fetch_rows(
        connect(store),
        "select model, fold, fraction, train_domain, max(seconds) as seconds from "
        f"results where manifest_id = {literal(splits[0].row.manifest_id)} and method = "
        f"{literal(method)} and target = 'label' and eval_dataset is null and model in ({names}) "
        "and json_extract_string(params, '$.views') is null group by all",
    )
    recorded = {(r["model"], r["fold"], r["fraction"], r["train_domain"]) for r in done}
    planned = {(m, s.row.fold, s.row.fraction, s.row.train_domain) for m in models for s in splits}
    seconds = [r["seconds"] for r in done if r["seconds"] is not None]
    n_missing = len(planned - recorded)
    guess = n_missing * sum(seconds) / len(seconds) if seconds else None
    return Step(spec, method, models, splits, n_missing, 0.0 if not n_missing else guess)


def paper(
    store: Store,
    planned: Plan,
    output: Path,
    options: PaperOptions,
    listener: PaperListener = PaperListener(),
) -> list[dict[str, Any]]:
    """Return the files of the report, written once what the plan lacks is run."""
    n_new = fill(store, planned.steps, options, listener)
    listener.line(f"{n_new} runs done")
    return report(store, planned.datasets, output, listener.reporting)


def fill(
    store: Store,
    steps: Sequence[Step],
    options: PaperOptions,
    listener: PaperListener = PaperListener(),
) -> int:
    """Return how many runs are new, once every step is run and all are compared with the best.

    What is recorded is skipped.
    """
    n_new = 0
    for step in steps:
        wanted = Asked(step.fractions, FOLDS)
        if step.method == PROBE:
            fits = RunOptions(models=step.models, splits=wanted)
            n_new += run(store, step.spec, fits, listener.fitting).n_new
        elif options.trained is not None:
            trained = replace(options.trained, splits=wanted)
            n_new += train(store, step.spec, trained, listener).n_new
    for spec in dict.fromkeys(s.spec for s in steps):
        _compare(store, spec, [s for s in steps if s.spec == spec], listener)
    return n_new


def _compare(
    store: Store, spec: ManifestSpec, steps: Sequence[Step], listener: PaperListener
) -> None:
    """Record an experiment's comparisons at its largest fraction, which the report shows."""
    largest = max(f for s in steps for f in s.fractions)
    options = CompareOptions(fractions=[largest])
    n_sides = sum(len(s.models) for s in steps)
    if n_sides < 2 or is_compared(store, spec, options):
        return
    try:
        _, notes = compare(store, spec, None, [], options, listener.comparing)
    except EmbedstoreError as e:  # what was run stands without
        notes = [str(e)]
    for note in notes:
        listener.line(note)
