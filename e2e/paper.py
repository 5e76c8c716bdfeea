"""The verb `paper`: what is missing of the paper's two experiments, probes and end to end.

It lies here, not in probes, since it needs both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from e2e.recipe import backbone_name
from e2e.run import METHOD, Listener, TrainOptions
from e2e.run import run as train
from embedstore.errors import EmbedstoreError
from embedstore.identity import how_to_embed
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows, literal
from probes.compare import CompareOptions, compare, is_compared
from probes.run import RunOptions, run
from probes.splits.manifests import StoredSplit, candidates, ensure_splits
from probes.splits.spec import ManifestSpec

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
        return sorted({float(s.row["fraction"]) for s in self.splits})

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
    """The steps in their order, and what is left out and why."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan(store: Store, datasets: Sequence[str], options: PaperOptions) -> Plan:
    """Return what both experiments take on these datasets; manifests are made where missing.

    Fractions and domains that are too small are left out by name. EmbedstoreError where a model has
    no embeddings of a dataset, all of them told at once.
    """
    models = {d: _models(store, d, options) for d in dict.fromkeys(datasets)}
    made = Plan()
    for dataset, mine in models.items():
        for scheme in EXPERIMENTS:
            spec = ManifestSpec(dataset, scheme, options.group_by, seed=options.seed)
            fractions = None if scheme == "monte-carlo" else (1.0,)
            try:
                found = candidates(store, spec)
                if scheme == "cross-domain" and len(set(found.pool.domains)) < 2:
                    raise EmbedstoreError("it has one domain, so there is no other to test on")
                splits, notes = ensure_splits(store, found, folds=FOLDS, fractions=fractions)
            except EmbedstoreError as e:
                made.notes.append(f"{EXPERIMENTS[scheme]} of {dataset} is left out: {e}")
                continue
            made.notes.extend(f"{dataset}: {n}" for n in notes)
            made.steps.append(_step(store, spec, PROBE, mine, splits))
            if options.trained is not None:
                backbone = [backbone_name(options.trained.backbone)]
                made.steps.append(_step(store, spec, METHOD, backbone, splits))
    return made


def _models(store: Store, dataset: str, options: PaperOptions) -> list[str]:
    sql = f"select distinct model from embeddings where dataset = {literal(dataset)} order by 1"
    have = [r["model"] for r in fetch_rows(connect(store), sql)]
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
        f"results where manifest_id = {literal(splits[0].row['manifest_id'])} and method = "
        f"{literal(method)} and target = 'label' and eval_dataset is null and model in ({names}) "
        "and json_extract_string(params, '$.views') is null group by all",
    )
    there = {(r["model"], r["fold"], r["fraction"], r["train_domain"]) for r in done}
    wanted = {
        (m, s.row["fold"], s.row["fraction"], s.row["train_domain"]) for m in models for s in splits
    }
    known = [r["seconds"] for r in done if r["seconds"] is not None]
    missing = len(wanted - there)
    guess = missing * sum(known) / len(known) if known else None
    return Step(spec, method, models, splits, missing, 0.0 if not missing else guess)


def fill(
    store: Store,
    steps: Sequence[Step],
    options: PaperOptions,
    on_fit: Callable[[int, int], None] = lambda done, total: None,
    listener: Listener = Listener(),
    on_pair: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Run every step, then compare all with the best; what is recorded is skipped.

    Return how many runs are new.
    """
    n_new = 0
    for step in steps:
        if step.method == PROBE:
            asked = RunOptions(models=step.models, fractions=step.fractions, folds=FOLDS)
            n_new += run(store, step.spec, asked, on_fit).n_new
        elif options.trained is not None:
            trained = replace(options.trained, fractions=step.fractions, folds=FOLDS)
            n_new += train(store, step.spec, trained, listener).n_new
    _compare(store, steps, listener, on_pair)
    return n_new


def _compare(
    store: Store, steps: Sequence[Step], listener: Listener, on_pair: Callable[[int, int], None]
) -> None:
    """Record each experiment's comparisons at its largest fraction, what the report shows."""
    for spec in dict.fromkeys(s.spec for s in steps):
        mine = [s for s in steps if s.spec == spec]
        asked = CompareOptions(
            spec.scheme,
            spec.group_by,
            spec.stratify,
            spec.where,
            spec.seed,
            fractions=[max(f for s in mine for f in s.fractions)],
        )
        if sum(len(s.models) for s in mine) < 2 or is_compared(store, spec.dataset, asked):
            continue
        try:
            _, notes = compare(store, spec.dataset, None, [], asked, on_pair)
        except EmbedstoreError as e:  # what was run stands without
            notes = [str(e)]
        for note in notes:
            listener.line(note)
