"""What `run` is asked for: which fits, of which models; checked before anything is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedstore.embeddings.identity import how_to_embed
from embedstore.errors import EmbedstoreError, UsageError, nearest
from embedstore.slides.patches import VIEW_SETS
from embedstore.store import Store
from embedstore.store.sql import (
    check_dataset,
    connect,
    embedded_models,
    fetch_rows,
)
from probes.methods.corrections import Correction
from probes.methods.table import METHODS, TARGETS, USUAL
from probes.scores.best_pool import BEST, with_variants
from probes.slices import MEAN, fusion_of, weights_of
from probes.splits.schemes import trains_by_domain
from probes.splits.spec import Asked, ManifestSpec


@dataclass(frozen=True)
class RunOptions:
    """Which fits of a manifest; models None: all that have embeddings.

    target is what is learnt, label or domain; views a set of views to train on and average over;
    eval_dataset another dataset to score instead; pool: BEST records what is best on validation;
    correct: a correction of the embeddings as KIND:COLUMN, transductive: by test rows as well;
    max_memory: bytes that the process may take, None for as much as it needs.
    """

    models: Sequence[str] | None = None
    methods: Sequence[str] = (USUAL,)
    splits: Asked = field(default_factory=Asked)
    target: str = TARGETS[0]
    views: str | None = None
    eval_dataset: str | None = None
    force: bool = False
    pool: str | None = None
    correct: str | None = None
    transductive: bool = False
    max_memory: int | None = None

    @property
    def correction(self) -> Correction | None:
        """The correction, None where none is asked for; UsageError for one that is not known."""
        return Correction.parse(self.correct, transductive=self.transductive)


def check(store: Store, spec: ManifestSpec, options: RunOptions) -> None:
    """Raise UsageError where what is asked for is not known, or does not go together."""
    if unknown := [m for m in options.methods if m not in METHODS]:
        meant = nearest(unknown[0], METHODS)
        raise UsageError(
            f"unknown method {', '.join(unknown)}; allowed: {', '.join(METHODS)}{meant}"
        )
    if options.target not in TARGETS:
        raise UsageError(f"unknown --target '{options.target}'; allowed: {', '.join(TARGETS)}")
    if options.views is not None and options.views not in VIEW_SETS:
        raise UsageError(f"unknown --views '{options.views}'; allowed: {', '.join(VIEW_SETS)}")
    if options.eval_dataset is not None:
        check_dataset(store, connect(store), options.eval_dataset)
    if options.pool not in (None, BEST):
        raise UsageError(f"unknown --pool '{options.pool}'; allowed: {BEST}")
    if options.pool and options.eval_dataset:
        raise UsageError(f"--pool {BEST} is not for --eval-dataset; run it without first")
    if options.eval_dataset and any(m.startswith(MEAN) for m in options.models or ()):
        raise UsageError(f"{MEAN}A+B is not for --eval-dataset; A+B is, and each of them")
    if options.correction is not None and (options.pool or options.eval_dataset):
        raise UsageError("--correct is not for --pool or --eval-dataset; run it without")
    if options.correction is not None and options.max_memory is not None:
        raise UsageError("--correct needs all vectors in memory; run it without --max-memory")
    if options.target == "domain" and trains_by_domain(spec.scheme):
        raise UsageError(
            f"--scheme {spec.scheme} trains without some domains, so that --target domain cannot "
            "learn them; use --scheme monte-carlo or predefined"
        )


def params_of(method: str, options: RunOptions) -> dict[str, Any]:
    """Return what a run records of its method: its parameters, views and correction."""
    params: dict[str, Any] = METHODS[method].make().get_params()
    params |= {"views": options.views} if options.views else {}
    return params | (options.correction.params if options.correction else {})


def _fused(asked: Sequence[str], by_name: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a row for each name that stands for several models: what runs record of it."""
    rows = {}
    for name in asked:
        fusion = fusion_of(name, by_name)
        if fusion is not None:
            of = [by_name[part] for part in fusion.parts]
            weights = ", ".join(str(r["weights"]) for r in of)
            sha256 = weights_of([r["weights_sha256"] for r in of])
            rows[name] = {"model": name, "weights": weights, "weights_sha256": sha256}
    return rows


def models_of(store: Store, dataset: str, options: RunOptions) -> list[dict[str, Any]]:
    """Return the models' rows: those asked for, or all that have embeddings of the dataset."""
    con, asked = connect(store), options.models
    check_dataset(store, con, dataset)
    have: list[dict[str, Any]] = fetch_rows(
        con,
        "select * from models where list_contains($models, model) order by model",
        {"models": embedded_models(con, dataset)},
    )
    if not have:
        raise EmbedstoreError(
            f"dataset '{dataset}' has no embeddings; make them with "
            f"`{how_to_embed(store, dataset, asked[0] if asked else 'MODEL')}`"
        )
    if options.pool == BEST:
        asked = with_variants(asked, [r["model"] for r in have])
    if asked is None:
        return have
    by_name = {r["model"]: r for r in have}
    by_name |= _fused([m for m in asked if m not in by_name and "+" in m], by_name)
    if unknown := [m for m in asked if m not in by_name]:
        raise EmbedstoreError(
            f"no embeddings of {', '.join(unknown)} for '{dataset}'; there: {', '.join(by_name)}; "
            f"make them with `{how_to_embed(store, dataset, unknown[0])}`"
            f"{nearest(unknown[0], by_name)}"
        )
    return [by_name[m] for m in dict.fromkeys(asked)]
