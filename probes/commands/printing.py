"""What several commands print: sizes of splits, what leaks, and summaries of runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from embedstore.terminal.printing import print_json, print_table, say, say_notes
from probes.splits.recorded import SplitRow
from probes.splits.spec import ManifestSpec

if TYPE_CHECKING:  # what these import is numpy
    from probes.scores.results import RunReport, Summary
    from probes.studies.measures import Measure

_LEAKS = {
    "shared_slides": "lie on a slide seen in training",
    "shared_cases": "come from a case seen",
    "overlapping_patches": "overlap a training patch of {um:g} um",
    "shared_centres": "contain a training annotation's centre",
}


def say_leakage(
    rows: Sequence[SplitRow], elsewhere: Sequence[Mapping[str, float | None]] | None = None
) -> None:
    """Say what the largest fraction's train gives away of its test, as a mean over folds.

    elsewhere: in place of the rows' own audit that of another dataset, one a row.
    """
    largest = max(r.fraction for r in rows)
    own = [{k: getattr(r, k) for k in (*_LEAKS, "patch_um")} for r in rows]
    audits = own if elsewhere is None else elsewhere
    at_largest = [a for r, a in zip(rows, audits, strict=True) if r.fraction == largest]
    parts, um = [], max(a["patch_um"] or 0 for a in at_largest)
    for column, what in _LEAKS.items():
        shares = [s for a in at_largest if (s := a[column]) is not None]
        share = f"{sum(shares) / len(shares):.1%}" if shares else "an unknown share"
        parts.append(f"{share} {what.format(um=um)}")
    whose = "test" if elsewhere is None else "other dataset's"
    say(f"leakage at fraction {largest:g}: of the {whose} annotations {', '.join(parts)}")


def print_splits(title: str, rows: Sequence[SplitRow]) -> None:
    """Print the sizes of splits, folds of one fraction and train domain in one row."""
    lines: dict[tuple[Any, ...], list[SplitRow]] = {}
    for r in rows:
        lines.setdefault((r.train_domain, r.fraction), []).append(r)
    shown = []
    for (domain, fraction), folds in lines.items():
        line: dict[str, Any] = {"train domain": domain} if domain is not None else {}
        line |= {"fraction": fraction, "folds": len(folds)}
        line |= {
            k.removeprefix("n_"): _span([getattr(r, k) for r in folds])
            for k in ("n_train", "n_val", "n_test")
        }
        shown.append(line | {"val by": ", ".join(sorted({r.val_by for r in folds}))})
    print_table(title, shown)


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} - {high:,}"


def print_runs(report: "RunReport", done: str, as_json: bool) -> None:
    """Print what `probes run` or `e2e run` reports; done says what its new runs are."""
    from probes.scores.results import summarise

    if as_json:
        print_json([asdict(r) for r in report.rows])
    else:
        spec = ManifestSpec.of(report.splits[0].row)
        title = f"AUROC: {spec.dataset}, {spec.words()} (manifest {report.manifest_id})"
        _print_summary(title, summarise(report.rows))
    say(f"{report.n_new} {done}, {report.n_recorded} recorded before")
    say_notes(report.notes)
    say_leakage([s.row for s in report.splits], report.elsewhere)


def _print_summary(title: str, lines: Sequence["Summary"]) -> None:
    shown = []
    for s in lines:
        line: dict[str, Any] = {
            "model": s.model,
            "weights": s.weights,
            "method": s.method,
            "fraction": s.fraction,
            "n_train": s.n_train,
        }
        if s.where != "all":
            line["test"] = s.where
        has_interval = not math.isnan(s.low)
        line |= {
            "mean": f"{s.mean:.3f}",
            "SD": f"{s.sd:.3f}" if s.n_runs > 1 else "",
            "a run's 95% CI": f"{s.low:.3f} - {s.high:.3f}" if has_interval else "",
            "runs": s.n_runs,
        }
        if any(x.n_failed for x in lines):
            line["collapsed or unconverged"] = s.n_failed
        shown.append(line)
    narrow = [c for c in shown[0] if c not in ("weights", "runs")] if shown else []
    print_table(title, shown, narrow=narrow)


def print_measures(title: str, measures: Sequence["Measure"], as_json: bool) -> None:
    """Print what a study found: of each metric a table, models down, what differs across."""
    if as_json:
        from probes.studies.measures import shown

        print_json(shown(measures))
        return
    for metric in dict.fromkeys(m.metric for m in measures):
        mine = [m for m in measures if m.metric == metric]
        across = next(
            (k for k in ("split", "x", "factor") if len({getattr(m, k) for m in mine}) > 1), "split"
        )
        lines: dict[str, dict[str, str]] = {}
        columns = list(dict.fromkeys(_name(getattr(m, across)) for m in mine))
        for m in mine:
            who = m.model or "all models"
            who += f" less {m.against}" if m.against else ""
            if across != "factor" and len({x.factor for x in mine}) > 1:
                who += f", {m.factor}"
            line = lines.setdefault(who, {"model": who} | dict.fromkeys(columns, ""))
            line[_name(getattr(m, across))] = _said(m)
        print_table(f"{title}: {metric}", list(lines.values()))


def _name(value: str | float | None) -> str:
    return "value" if value is None else f"{value:g}" if isinstance(value, float) else value


def _said(m: "Measure") -> str:
    """Return a measure as text: its value, interval and (corrected) p-value, as far as known."""
    if m.value is None:
        return "-"
    sign = "+" if m.against else ""
    text = f"{m.value:{sign}.3f}"
    if m.ci_low is not None and m.ci_high is not None:
        text += f" ({m.ci_low:{sign}.3f} to {m.ci_high:{sign}.3f})"
    p = m.p_value if m.p_holm is None else m.p_holm
    return text + (f", p {p:.3f}" if p is not None and m.against else "")


def print_beside(measures: Sequence["Measure"], *, every: bool, as_json: bool) -> None:
    """Print what a reproduction found: a table a model and test set, ours before the published."""
    from probes.recipes import METRICS
    from probes.studies.measures import shown
    from probes.studies.reproduce import rows_beside

    if as_json:
        print_json(shown(measures))
        return
    tables: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for r in rows_beside(measures, every=every):
        lines = tables.setdefault((r["model"], r["test"]), {})
        name = METRICS.get(r["metric"], r["metric"])
        lines.setdefault(HERE, {})[name] = _spread(r["value"], r["sd"])
        if r["ci_low"] is not None:
            lines.setdefault("95% CI", {})[name] = f"{r['ci_low']:.3f} - {r['ci_high']:.3f}"
        drift = f", {r['drift']}" if r["drift"] else ""
        said = f"{_spread(r['published'], r['published_sd'])} ({r['difference']:+.3f}{drift})"
        lines.setdefault(r["of"], {})[name] = said
    for (model, test), lines in tables.items():
        columns = list(lines[HERE])
        rows = [{"": who} | {c: of.get(c, "") for c in columns} for who, of in lines.items()]
        print_table(f"{model}: {_TESTS.get(test, test)}", rows)
    if tables:
        say("mean \u00b1 SD over runs; in brackets: ours less the published number, and drift")


HERE = "here"
_TESTS = {"all": "the recipe's own test set"}


def _spread(value: float, sd: float | None) -> str:
    return f"{value:.3f}" + ("" if sd is None else f" \u00b1 {sd:.3f}")
