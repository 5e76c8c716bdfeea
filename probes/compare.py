"""The verb `compare`: two methods on the same test annotations, with tests fit for them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.query import check_dataset, connect, fetch, fetch_rows, literal
from embedstore.store import Store
from probes.metrics import METRICS
from probes.results import known, variant_of
from probes.scoring import ALL, seed_of
from probes.slices import codes_of
from probes.statistics import N_RESAMPLES, Fold, delong, holm, paired_bootstrap


@dataclass(frozen=True)
class Side:
    """One side of a comparison: METHOD:MODEL, or METHOD+VARIANT:MODEL.

    A variant is a set of views, or how a network was adapted: uni+d4:virchow2, e2e+lora:virchow2.
    """

    method: str
    model: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Side":
        """Return the side that METHOD:MODEL names; a model's name may hold colons itself."""
        method, colon, model = text.partition(":")
        if not (method and colon and model):
            raise EmbedstoreError(f"'{text}' is not METHOD:MODEL, for example uni:virchow2")
        method, _, variant = method.partition("+")
        return cls(method, model, variant or None)

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.method}{f'+{self.variant}' if self.variant else ''}:{self.model}"

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> "Side":
        """Return the side that a row of results belongs to."""
        return cls(run["method"], run["model"], variant_of(run["params"]))


@dataclass(frozen=True)
class CompareOptions:
    """Which recorded runs are compared: manifests of a scheme, grouping and condition."""

    scheme: str = "monte-carlo"
    group_by: str = "annotation"
    stratify: str = "none"
    where: str | None = None
    seed: int = 42
    fractions: Sequence[float] | None = None
    metric: str = "auroc"
    n_resamples: int = N_RESAMPLES


def compare(
    store: Store, dataset: str, a: Side, others: Sequence[Side], options: CompareOptions
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row per other side, fraction, train domain, eval domain and fold; and notes.

    The row of fold None is over all folds: the mean difference with slides (or cases, where the
    manifest groups by them) resampled jointly in all folds. DeLong's test is of single folds, and
    its annotations count as independent. p_holm corrects the rows over all folds for their number.
    """
    if options.metric not in METRICS:
        raise EmbedstoreError(f"unknown metric '{options.metric}'; allowed: {', '.join(METRICS)}")
    con = connect(store)
    check_dataset(store, con, dataset)
    runs = _runs(con, dataset, options)
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for b in others:
        mine, theirs = (_of(runs, side, dataset, options) for side in (a, b))
        shared = [k for k in mine if k in theirs]
        if not shared:
            raise EmbedstoreError(
                f"{a} and {b} have no run on the same split of '{dataset}'; run both with the same "
                "--scheme, --group-by, --where and --fraction"
            )
        if lone := (len(mine) - len(shared)) + (len(theirs) - len(shared)):
            notes.append(f"{lone} runs of {a} or {b} have no partner on the same split")
        rows += _pairs(con, a, b, {k: (mine[k], theirs[k]) for k in shared}, options)
    whole = [r for r in rows if r["fold"] is None]
    for row, p in zip(whole, holm([_number(r["p_value"]) for r in whole]), strict=True):
        row["p_holm"] = known(p)
    return rows, notes


def _runs(con: Any, dataset: str, options: CompareOptions) -> list[dict[str, Any]]:
    where = "is null" if options.where is None else f"= {literal(options.where.strip())}"
    sql = (
        "select distinct run_id, method, model, params, manifest_id, fold, fraction, train_domain, "
        "threshold, state from results where eval_dataset is null and target = 'label' and "
        f"dataset = {literal(dataset)} and scheme = {literal(options.scheme)} and "
        f"group_by = {literal(options.group_by)} and stratify = {literal(options.stratify)} and "
        f"seed = {options.seed} and where_sql {where}"
    )
    rows = fetch_rows(con, sql)
    if options.fractions is not None:
        rows = [r for r in rows if r["fraction"] in options.fractions]
    return rows


def _of(
    runs: Sequence[Mapping[str, Any]], side: Side, dataset: str, options: CompareOptions
) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    """Return a side's runs by split; EmbedstoreError where there are none or several kinds."""
    mine = [r for r in runs if Side.of(r) == side]
    if not mine:
        there = sorted({str(Side.of(r)) for r in runs})
        raise EmbedstoreError(
            f"no run of {side} on '{dataset}' with --scheme {options.scheme} --group-by "
            f"{options.group_by}; there: {', '.join(there) or 'none'}"
        )
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for r in mine:
        key = (r["manifest_id"], r["fraction"], r["train_domain"] or "", r["fold"])
        if key in found and found[key]["run_id"] != r["run_id"]:
            kinds = sorted({x["params"] for x in mine})
            raise EmbedstoreError(
                f"{side} has runs of several kinds on one split ({'; '.join(kinds)}); compare them "
                "in SQL, or keep one"
            )
        found[key] = r
    return dict(sorted(found.items()))


def _pairs(
    con: Any, a: Side, b: Side,
    pairs: Mapping[tuple[Any, ...], tuple[Mapping[str, Any], Mapping[str, Any]]],
    options: CompareOptions,
) -> list[dict[str, Any]]:  # fmt: skip
    together: dict[tuple[Any, ...], list[tuple[int, Fold]]] = defaultdict(list)
    for (manifest, fraction, domain, fold), (one, two) in pairs.items():
        for name, test in _folds(con, one, two, bool(domain), options).items():
            together[manifest, fraction, domain or None, name].append((fold, test))
    rows = []
    for (manifest, fraction, domain, name), folds in together.items():
        same = {"a": str(a), "b": str(b), "metric": options.metric, "manifest_id": manifest,
                "fraction": fraction, "train_domain": domain, "eval_domain": name}  # fmt: skip
        seed = seed_of(manifest, domain, name)
        for fold, test in folds:
            rows.append(same | {"fold": fold, "n_folds": 1} | _row([test], seed, options))
        if len(folds) > 1:
            tests = [t for _, t in folds]
            rows.append(same | {"fold": None, "n_folds": len(folds)} | _row(tests, seed, options))
        else:
            rows[-1] |= {"fold": None}  # one fold is all folds
    return rows


def _folds(
    con: Any, one: Mapping[str, Any], two: Mapping[str, Any], by_domain: bool,
    options: CompareOptions,
) -> dict[str, Fold]:  # fmt: skip
    """Return the shared test set of two runs, whole or by eval domain."""
    ids = [literal(r["run_id"]) for r in (one, two)]
    table = fetch(
        con,
        "select annotation_id, label, domain, slide, case_id, a_labels, a, b from (select "
        "annotation_id, list(label order by label) as a_labels, list(score order by label) as a "
        f"from predictions where run_id = {ids[0]} and role = 'test' group by 1) join (select "
        "annotation_id, list(score order by label) as b from predictions "
        f"where run_id = {ids[1]} and role = 'test' group by 1) using (annotation_id) "
        "join annotations using (annotation_id) order by annotation_id",
    )
    scored = table["a_labels"][0].as_py() if len(table) else []
    truth = table["label"].to_pylist()
    if len(scored) == 1:  # of two labels the positive one is stored
        order = ["", scored[0]]
        y = np.array([int(t == scored[0]) for t in truth], dtype=np.intp)
    else:
        order = scored
        y = codes_of(truth, order)
    a, b = (_probabilities(table[side]) for side in "ab")
    groups = table["case_id" if options.group_by == "case" else "slide"].to_pylist()
    names = np.array(table["domain"].to_pylist() if by_domain else [ALL] * len(truth), dtype=object)
    cuts = [float(r["threshold"]) if r["threshold"] is not None else 0.5 for r in (one, two)]
    folds = {}
    for name in sorted(set(names.tolist())):
        mine = np.flatnonzero(names == name)
        folds[name] = Fold(y[mine], a[mine], b[mine], [groups[i] for i in mine], *cuts)
    return folds


def _probabilities(column: Any) -> NDArray[np.float64]:
    each = np.array(column.to_pylist(), dtype=np.float64)
    return np.column_stack((1 - each[:, 0], each[:, 0])) if each.shape[1] == 1 else each


def _row(folds: Sequence[Fold], seed: int, options: CompareOptions) -> dict[str, Any]:
    found = paired_bootstrap(folds, options.metric, n_resamples=options.n_resamples, seed=seed)
    row = {
        "n_test": round(float(np.mean([len(f.y) for f in folds]))),
        "n_groups": len({g for f in folds for g in f.groups}),
        "difference": known(found.difference), "ci_low": known(found.low),
        "ci_high": known(found.high), "p_value": known(found.p_value),
        "p_delong": None, "p_holm": None,
    }  # fmt: skip
    if len(folds) == 1 and options.metric == "auroc" and folds[0].a.shape[1] == 2:
        (fold,) = folds
        row["p_delong"] = known(delong(fold.y, fold.a[:, 1], fold.b[:, 1]).p_value)
    return row


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
