"""The verb `compare`: two methods on the same test annotations, with tests fit for them."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.store import Store, now
from embedstore.store.records import fetch_records
from embedstore.store.sql import check_dataset, connect, fetch_rows
from probes.scores.classical import delong, holm
from probes.scores.comparisons import CompareOptions, record_comparisons
from probes.scores.evaluate import ALL, left_out_by
from probes.scores.joint import Fold, paired
from probes.scores.metrics import METRICS
from probes.scores.power import groups_needed
from probes.scores.recorded import RunRow
from probes.scores.results import IN, OUT, from_null, to_null
from probes.scores.scored_set import scored_set
from probes.scores.sides import Side, ranked
from probes.splits.schemes import is_in_domain
from probes.splits.spec import ManifestSpec

Pair = tuple[RunRow, RunRow]


def compare(
    store: Store,
    spec: ManifestSpec,
    a: Side | None,
    others: Sequence[Side],
    options: CompareOptions,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row per other side, fraction, train domain, eval domain and fold; and notes.

    The row of fold None is over all folds: the mean difference with slides (or cases, where the
    manifest groups by them) left out jointly in all folds. DeLong's test is of single folds, and
    its annotations count as independent. Where runs have train domains, two more rows are over all
    of them, eval domain IN or OUT and train domain None. p_holm corrects the rows over all folds
    for their number, and those two kinds for theirs. Rows over all folds are recorded, all at once.
    groups_needed: how many slides (or cases) find a difference as large in 80 of 100 studies.

    Without a, that is the best one (see `ranked`, in the metric's own direction); without others,
    all but a that share a split with it. on_progress(done, total) counts the other sides.
    """
    if options.metric not in METRICS:
        raise UsageError(f"unknown metric '{options.metric}'; allowed: {', '.join(METRICS)}")
    started = now()
    con = connect(store)
    check_dataset(store, con, spec.dataset)
    runs = _runs(con, spec, options)
    first = a or _best(con, runs, spec, options.metric)
    asked = [b for b in others or _sides(runs) if b != first]
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for n, b in enumerate(asked):
        on_progress(n, len(asked))
        try:
            pairs, lone = _shared(runs, first, b, spec)
        except EmbedstoreError as e:
            if others:
                raise
            notes.append(f"left out: {e}")
            continue
        if lone:
            notes.append(f"{lone} runs of {first} or {b} have no partner on the same split")
        rows += _pairs(con, (first, b), pairs, spec.group_by, options)
    on_progress(len(asked), len(asked))
    if not rows:
        why = "; ".join(notes) or f"{first} has runs alone"
        raise EmbedstoreError(f"nothing to compare on '{spec.dataset}': {why}")
    notes += _changed(con, rows)
    whole = [r for r in rows if r["fold"] is None]
    for kind in (True, False):
        of_kind = [r for r in whole if (r["eval_domain"] in (IN, OUT)) == kind]
        for row, p in zip(of_kind, holm([from_null(r["p_value"]) for r in of_kind]), strict=True):
            row["p_holm"] = to_null(p)
    record_comparisons(store, spec, options, whole, started)
    return [{k: v for k, v in r.items() if k != "run_ids"} for r in rows], notes


def _runs(con: Any, spec: ManifestSpec, options: CompareOptions) -> list[RunRow]:
    condition, values = spec.condition()
    # Each metric and eval domain has a row, which agree in what is the run's own.
    rows = fetch_records(
        con,
        RunRow,
        "from (select distinct on (run_id) * from results where eval_dataset is null and "
        f"target = 'label' and {condition})",
        values,
    )
    if options.fractions is not None:
        rows = [r for r in rows if r.fraction in options.fractions]
    return rows


def _sides(runs: Sequence[RunRow]) -> list[Side]:
    return sorted({Side.named(r) for r in runs}, key=str)


def _best(con: Any, runs: Sequence[RunRow], spec: ManifestSpec, metric: str) -> Side:
    cells: dict[Side, dict[tuple[Any, ...], float]] = defaultdict(dict)
    of_run = {r.run_id: r for r in runs}
    for v in fetch_rows(
        con,
        "select run_id, eval_domain, value from results where metric = $metric and eval_dataset is "
        "null and value is not null and list_contains($run_ids, run_id)",
        {"metric": metric, "run_ids": list(of_run)},
    ):
        r, value = (
            of_run[v["run_id"]],
            -v["value"] if METRICS[metric].is_lower_better else v["value"],
        )
        cells[Side.named(r)][r.fraction, r.run_id, v["eval_domain"]] = value
    if not cells:
        raise EmbedstoreError(
            f"no run on '{spec.dataset}' with --scheme {spec.scheme} --group-by {spec.group_by}; "
            "`probes run` makes them"
        )
    return ranked(dict(sorted(cells.items(), key=lambda item: str(item[0]))))[0]


def _shared(
    runs: Sequence[RunRow], a: Side, b: Side, spec: ManifestSpec
) -> tuple[dict[tuple[Any, ...], Pair], int]:
    """Return the runs of both sides by split, and how many runs have no partner."""
    ours, theirs = (_of(runs, side, spec) for side in (a, b))
    shared = [k for k in ours if k in theirs]
    if not shared:
        raise EmbedstoreError(
            f"{a} and {b} have no run on the same split of '{spec.dataset}'; run both with the "
            "same --scheme, --group-by, --where and --fraction"
        )
    lone = len(ours) + len(theirs) - 2 * len(shared)
    return {k: (ours[k], theirs[k]) for k in shared}, lone


def _of(runs: Sequence[RunRow], side: Side, spec: ManifestSpec) -> dict[tuple[Any, ...], RunRow]:
    """Return a side's runs by split; EmbedstoreError where there are none or several kinds."""
    of_side = [r for r in runs if Side.named(r) == side]
    if not of_side:
        recorded = sorted({str(Side.named(r)) for r in runs})
        raise EmbedstoreError(
            f"no run of {side} on '{spec.dataset}' with --scheme {spec.scheme} --group-by "
            f"{spec.group_by}; there: {', '.join(recorded) or 'none'}"
        )
    by_split: dict[tuple[Any, ...], RunRow] = {}
    for r in of_side:
        key = (r.manifest_id, r.fraction, r.train_domain or "", r.fold)
        if key in by_split and by_split[key].run_id != r.run_id:
            kinds = sorted({x.params for x in of_side})
            raise EmbedstoreError(
                f"{side} has runs of several kinds on one split ({'; '.join(kinds)}); compare them "
                "in SQL, or keep one"
            )
        by_split[key] = r
    return dict(sorted(by_split.items()))


def _pairs(
    con: Any,
    sides: tuple[Side, Side],
    pairs: Mapping[tuple[Any, ...], Pair],
    group_by: str,
    options: CompareOptions,
) -> list[dict[str, Any]]:
    cells: dict[tuple[Any, ...], list[tuple[int, Fold]]] = defaultdict(list)
    ids: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for (manifest, fraction, domain, fold), (one, two) in pairs.items():
        for name, test in _folds(con, (one, two), bool(domain), group_by).items():
            keys = [(manifest, fraction, domain or None, name)]
            if domain:
                inside = is_in_domain(one.scheme, domain, name)
                keys.append((manifest, fraction, None, IN if inside else OUT))
            for key in keys:
                cells[key].append((fold, test))
                ids[key] |= {one.run_id, two.run_id}
    rows = []
    for key, folds in sorted(cells.items(), key=lambda item: item[0][3] in (IN, OUT)):
        manifest, fraction, domain, name = key
        same = {
            "a": str(sides[0]),
            "b": str(sides[1]),
            "metric": options.metric,
            "manifest_id": manifest,
            "fraction": fraction,
            "train_domain": domain,
            "eval_domain": name,
            "run_ids": sorted(ids[key]),
        }
        tests = [t for _, t in folds]
        if name not in (IN, OUT):
            rows += [same | {"fold": f, "n_folds": 1} | _row([t], options) for f, t in folds]
            if len(folds) == 1:
                rows[-1] |= {"fold": None}  # one fold is all folds
                continue
        n_folds = len({f for f, _ in folds})
        rows.append(same | {"fold": None, "n_folds": n_folds} | _row(tests, options))
    return rows


def _folds(con: Any, runs: Pair, by_domain: bool, group_by: str) -> dict[str, Fold]:
    """Return the shared test set of two runs, whole or by eval domain."""
    a, b = (scored_set(con, r.run_id, r.threshold) for r in runs)
    _, at_a, at_b = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
    names = a.facts["domain"][at_a] if by_domain else np.full(len(at_a), ALL, dtype=object)
    by, folds = left_out_by(group_by), {}
    for name in sorted(set(names.tolist())):
        mine = names == name
        one, two = a.at(at_a[mine], by), b.at(at_b[mine], by)
        folds[name] = Fold(
            one.y, one.p, two.p, one.groups, one.cut, two.cut, rank_a=one.rank, rank_b=two.rank
        )
    return folds


def _changed(con: Any, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a note on annotations that are no longer what they were when these runs were made."""
    run_ids = sorted({i for r in rows for i in r["run_ids"]})
    (n,) = fetch_rows(
        con,
        "select count(distinct annotation_id) filter (a.label is null)::int as gone, "
        "count(distinct annotation_id) filter (a.label != p.truth)::int as changed "
        "from predictions p left join annotations a using (annotation_id) "
        "where p.role = 'test' and list_contains($run_ids, p.run_id)",
        {"run_ids": run_ids},
    )
    if not n["gone"] and not n["changed"]:
        return []
    return [
        f"{n['changed']} annotations have another label since these runs: the runs' own were used; "
        f"{n['gone']} are gone and were left out; `probes run` makes runs on what is there now"
    ]


def _row(folds: Sequence[Fold], options: CompareOptions) -> dict[str, Any]:
    found = paired(folds, options.metric)
    n_groups = len({g for f in folds for g in f.groups})
    row = {
        "n_test": round(float(np.mean([len(f.y) for f in folds]))),
        "n_groups": n_groups,
        "difference": to_null(found.difference),
        "ci_low": to_null(found.low),
        "ci_high": to_null(found.high),
        "p_value": to_null(found.p_value),
        "p_delong": None,
        "p_holm": None,
        "groups_needed": groups_needed(found.difference, found.error, n_groups),
    }
    if len(folds) == 1 and options.metric == "auroc" and folds[0].a.shape[1] == 2:
        (fold,) = folds
        one, two = (
            r if r is not None else p for p, r in ((fold.a, fold.rank_a), (fold.b, fold.rank_b))
        )
        row["p_delong"] = to_null(delong(fold.y, one[:, 1], two[:, 1]).p_value)
    return row
