"""Published protocols done here: the same splits and metrics, and how far from what was printed."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect, embedded_models
from probes.recipes import AT_PREVALENCE, HOW, Published, Recipe, recipe_of
from probes.runs.options import RunOptions, models_of
from probes.runs.verb import run
from probes.scores.evaluate import left_out_by
from probes.scores.joint import Joint, joint, mean_of_folds
from probes.scores.read_back import tests_of
from probes.scores.recorded import ResultRow
from probes.scores.results import where_of
from probes.splits.candidates import candidates
from probes.splits.files import import_rows
from probes.splits.schemes import trains_by_domain
from probes.splits.spec import Asked, ManifestSpec
from probes.studies.measures import Measure, MeasureRow, bounds, record_measures

STUDY = "reproduce"
N_SD = 2
"""Of how many SDs, ours and the published together, a difference must be to count as drift."""
HIGHER, LOWER, NONE = "higher", "lower", "none"
_SUFFIX = ", published"


@dataclass(frozen=True)
class Reproduction:
    """What came out: measures, the manifests, and notes."""

    measures: Sequence[Measure]
    manifests: Sequence[str]
    notes: Sequence[str]


@dataclass(frozen=True)
class _Part:
    """A manifest scored on one dataset: its own where on is None."""

    spec: ManifestSpec
    asked: Asked
    on: str | None


def reproduce(
    store: Store,
    name: str,
    *,
    models: Sequence[str] | None = None,
    dataset: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Reproduction:
    """Fit a recipe's probes, score them as it does, and put the published numbers beside them.

    models None: all with embeddings of the dataset; dataset None: the recipe's by its public name.
    Of each metric, model and test set one measure is the mean over folds with its interval (slides
    or cases left out), and one for each published number, against it, is the difference: its
    details hold the number, both SDs and, where it is of the same model and kind of probe, whether
    that is drift (`drift_of`). Recorded in place of what was found of the same recipe and model;
    EmbedstoreError where the dataset is not there or not the recipe's.
    """
    recipe = recipe_of(name)
    own = dataset or recipe.dataset
    n_domains = _check_there(store, own, recipe)
    rows = models_of(store, own, RunOptions(models))
    parts, notes = _parts(store, own, recipe, [r["model"] for r in rows], n_domains)
    found: dict[tuple[str, str], list[ResultRow]] = defaultdict(list)
    manifests: dict[str, None] = {}
    for k, part in enumerate(parts):

        def tell(done: int, total: int, k: int = k) -> None:
            on_progress(100 * k + (100 * done) // max(total, 1), 100 * len(parts))

        options = RunOptions(
            [r["model"] for r in rows], [recipe.method], part.asked, eval_dataset=part.on
        )
        report = run(store, part.spec, options, tell)
        manifests[report.manifest_id] = None
        notes += [n for n in report.notes if n not in notes]
        for r in report.rows:
            found[r.model, where_of(r)].append(r)
    on_progress(100 * len(parts), 100 * len(parts))
    measures = []
    for row in rows:
        of_model = [
            m
            for (model, where), results in found.items()
            if model == row["model"]
            for m in _measured(store, name, row, where, results)
        ]
        record_measures(store, own, STUDY, of_model, {"factor": name, "model": row["model"]})
        measures += of_model
    notes += _failed(found)
    notes += [f"otherwise than published: {text}" for text in recipe.departs]
    return Reproduction(measures, list(manifests), notes + _unlike(recipe, rows))


def drift_of(value: float, sd: float, published: float, published_sd: float) -> str:
    """Return `HIGHER` or `LOWER` where values differ by more than N_SD of both SDs, else `NONE`.

    The SDs are over folds: what refitting and another draw of the folds change. On the same test
    cells they tell whether it is the same result, not whether either is true.
    """
    variances = [s * s for s in (sd, published_sd) if math.isfinite(s)]
    away = value - published
    if abs(away) <= N_SD * math.sqrt(sum(variances)) + 1e-9:
        return NONE
    return HIGHER if away > 0 else LOWER


def rows_beside(
    measures: Sequence[Measure | MeasureRow], *, every: bool = False
) -> list[dict[str, Any]]:
    """Return a row for each mean and published number beside it, in the order of a table.

    Not every: of the model's own numbers where there are such, else of the best by each way on
    either metric.
    """
    rows = []
    for m in (m for m in measures if m.against is None):
        key = (m.factor, m.model, m.split)
        here = [o for o in measures if o.against and (o.factor, o.model, o.split) == key]
        chosen = {o.against for o in (here if every else _chosen(here))}
        rows += [
            {
                "recipe": m.factor,
                "model": m.model,
                "test": m.split,
                "metric": m.metric,
                "value": m.value,
                "sd": _more(m)["sd"],
                "ci_low": m.ci_low,
                "ci_high": m.ci_high,
                "published": _more(o)["published"],
                "published_sd": _more(o)["published_sd"],
                "of": str(o.against).removesuffix(_SUFFIX),
                "difference": o.value,
                "drift": _more(o)["drift"],
            }
            for o in here
            if o.metric == m.metric and o.against in chosen
        ]
    return rows


def _more(m: Measure | MeasureRow) -> Mapping[str, Any]:
    return m.details if isinstance(m, Measure) else m.more


def _chosen(here: Sequence[Measure | MeasureRow]) -> list[Measure | MeasureRow]:
    if own := [o for o in here if _more(o)["drift"] is not None]:
        return own
    best: dict[tuple[str, str], Measure | MeasureRow] = {}
    for o in here:
        key = (o.metric, str(_more(o)["how"]))
        if key not in best or _more(o)["published"] > _more(best[key])["published"]:
            best[key] = o
    return list(best.values())


def _check_there(store: Store, dataset: str, recipe: Recipe) -> int:
    """Return how many domains a dataset has; EmbedstoreError unless it is one of two labels."""
    try:
        check_dataset(store, connect(store), dataset)
    except EmbedstoreError as e:
        raise EmbedstoreError(
            f"{e}; `embedstore fetch {recipe.dataset}` brings it, --dataset says which one it is "
            "here"
        ) from None
    pool = candidates(store, ManifestSpec(dataset)).pool
    labels = sorted(set(pool.labels))
    if len(labels) != 2:
        raise EmbedstoreError(
            f"the published numbers are of two labels, '{dataset}' has {len(labels)}: "
            f"{', '.join(labels)}; say which classes are which with `embedstore add --label`"
        )
    return len(set(pool.domains))


def _parts(
    store: Store, dataset: str, recipe: Recipe, models: Sequence[str], n_domains: int
) -> tuple[list[_Part], list[str]]:
    """Return the manifests to run and what each is scored on; splits of its own are stored."""
    if recipe.folds is None:
        kept = [s for s in recipe.schemes if n_domains > 1 or not trains_by_domain(s)]
        left = [f"{s} is left out: one domain" for s in recipe.schemes if s not in kept]
        return [_Part(ManifestSpec(dataset, scheme), Asked(), None) for scheme in kept], left
    manifest = candidates(store, ManifestSpec(dataset, group_by=recipe.group_by))
    rows = list(recipe.folds(manifest))
    splits, manifest_id = import_rows(store, dataset, rows, f"the splits of '{dataset}'")
    spec, asked = ManifestSpec.of(splits[0]), Asked(manifest=manifest_id)
    parts, notes, con = [_Part(spec, asked, None)], [], connect(store)
    for other in recipe.elsewhere:
        have = embedded_models(con, other)
        if lack := [m for m in models if m not in have]:
            notes.append(
                f"not scored on {other}: no embeddings of {', '.join(lack)} "
                f"(`embedstore fetch {other}`, then `embedstore ingest {other}`)"
            )
        else:
            parts.append(_Part(spec, asked, other))
    return parts, notes


def _measured(
    store: Store, name: str, model: dict[str, Any], where: str, results: Sequence[ResultRow]
) -> Iterator[Measure]:
    """Yield the means of a model on one test set, and the differences from what was printed."""
    recipe = recipe_of(name)
    tests, runs = tests_of(store, results)
    for metric in recipe.metrics:
        of = joint(tests, "balanced_accuracy" if metric == AT_PREVALENCE else metric)
        values = _by_run(of, runs)
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        estimate = of.share(mean_of_folds)
        same: dict[str, Any] = {"model": model["model"], "factor": name, "split": where}
        details = {"sd": None if math.isnan(sd) else sd, "n_runs": len(values)}
        by = left_out_by(results[0].group_by).removesuffix("_id")
        yield Measure(
            metric,
            **same,
            **(bounds(estimate) | {"details": details}),
            ci_by=by,
            n=round(float(of.sizes.mean())),  # of a test set
            n_groups=of.blocks.n_groups,
        )
        for p in recipe.published:
            if (p.metric, p.where) == (metric, where) and math.isfinite(estimate.value):
                yield _beside(p, estimate.value, sd, model, recipe, same)


def _beside(
    p: Published,
    value: float,
    sd: float,
    model: dict[str, Any],
    recipe: Recipe,
    same: dict[str, Any],
) -> Measure:
    is_same = p.method == recipe.method and p.model == _origin(model)
    details = {
        "published": p.mean,
        "published_sd": p.sd,
        "how": HOW[p.method],
        "place": p.place,
        "drift": drift_of(value, sd, p.mean, p.sd) if is_same else None,
    }
    against = f"{p.shown}, {HOW[p.method]}{_SUFFIX}"
    return Measure(p.metric, value - p.mean, against=against, **same, details=details)


def _origin(model: dict[str, Any]) -> str | None:
    """Return the registry's name of a model as published; None for a variant or random weights."""
    name = str(model["model"])
    if "@" in name or model["weights"] == "random":
        return None
    return model.get("registry_name") or name


def _unlike(recipe: Recipe, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return notes on models that nothing was published of, or that have no trained weights."""
    there = {p.model for p in recipe.published if p.method == recipe.method}
    notes = []
    if strange := [r["model"] for r in rows if _origin(r) not in there]:
        names = ", ".join(strange)
        notes.append(f"no linear probe of {names} was published there, so no drift is told")
    if random := [r["model"] for r in rows if r["weights"] == "random"]:
        notes.append(f"{', '.join(random)}: random weights, whose numbers say nothing")
    return notes


def _failed(found: Mapping[tuple[str, str], Sequence[ResultRow]]) -> list[str]:
    """Return whose probes learnt nothing, or did not end: what they score is no answer."""
    states: dict[str, dict[str, str]] = defaultdict(dict)
    for (model, _), results in found.items():
        states[model] |= {r.run_id: r.state for r in results}
    return [
        f"{model}: {n} of {len(of_run)} probes {state}, what they score is no answer"
        for model, of_run in states.items()
        for state, n in sorted(Counter(of_run.values()).items())
        if state != "ok"
    ]


def _by_run(of: Joint, runs: Sequence[str]) -> list[float]:
    """Return the value of each run: the mean over its test sets that have one."""
    values: dict[str, list[float]] = defaultdict(list)
    for run_id, value in zip(runs, of.values.tolist(), strict=True):
        if math.isfinite(value):
            values[run_id].append(value)
    return [float(np.mean(v)) for v in values.values()]
