"""The opening of the report says what the intervals say and no more; the leaderboard beside it."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from probes.reports import report
from probes.reports.sections.answer import sentences
from probes.runs import RunOptions, run
from probes.scores.results import summarise
from probes.splits.spec import ManifestSpec
from probes.studies.gap import gap
from probes.studies.measures import MeasureRow
from tests.making.stores import plant_cells, query


def measure(metric: str, model: str, split: str, value: float, **more: Any) -> MeasureRow:
    usual: dict[str, Any] = {
        "ci_low": None,
        "ci_high": None,
        "p_value": None,
        "p_holm": None,
        "n": 100,
    }
    usual |= {"against": None, "n_groups": 12, "ci_by": "slide", "ci_kind": "jackknife"}
    usual |= {"factor": None, "x": None, "details": None}
    return MeasureRow(
        dataset="d",
        study="gap",
        metric=metric,
        model=model,
        split=split,
        value=value,
        manifest_id="m",
        created_at=datetime(2026, 1, 1),
        **(usual | more),
    )


def two(p_holm: float, needed: int) -> list[MeasureRow]:
    lead = {"against": "b", "ci_low": -0.01, "ci_high": 0.09, "p_holm": p_holm}
    return [
        measure("auroc", "a", "annotation", 0.9),
        measure("auroc", "b", "annotation", 0.92),
        measure("auroc", "a", "slide", 0.8, ci_low=0.7, ci_high=0.87),
        measure("auroc", "b", "slide", 0.76, ci_low=0.6, ci_high=0.85),
        measure("auroc_drop", "a", "slide", 0.1, ci_low=0.02, ci_high=0.18),
        measure(
            "auroc_difference", "a", "slide", 0.04, details=f'{{"groups_needed": {needed}}}', **lead
        ),
    ]


def test_a_lead_that_is_not_sure_is_not_said_to_be_one() -> None:
    which, seemed, change = sentences(two(0.2, 40))
    assert which == (
        "No model is shown to be best: a has the highest AUROC, 0.800 (95% interval 0.700\u20130.870), "
        "where whole slides are kept out of training, but is not told apart from b (ahead of "
        "b by +0.040, 95% interval \u22120.010 to +0.090, p 0.200 after correction)."
    )
    assert seemed == (
        "By annotation, as is usual, it would have been 0.900, 0.100 more (95% interval +0.020 to "
        "+0.180); there b leads."
    )
    assert "12 slides" in change
    assert "about 28 more slides are needed" in change
    sure, _, change = sentences(two(0.01, 40))
    assert sure.startswith("a is best: an AUROC of 0.800")
    assert "needed" not in change
    assert "hardly any number would do" in sentences(two(0.9, 100_000))[2]


def test_one_model_and_no_honest_split() -> None:
    which, seemed, _ = sentences([measure("auroc", "a", "annotation", 0.9)])
    assert "the only model" in which
    assert "no interval" in which
    assert "no honest split" in seemed


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("answer")
    store = plant_cells(str(folder / "s"), "cells", ("good", "poor"), n=300)
    run(store, ManifestSpec("cells"), RunOptions())
    report(store, [], folder / "before")
    gap(store, "cells")
    report(store, [], folder / "after")
    return store, folder


def test_the_page_begins_with_it(written: Any) -> None:
    _, folder = written
    before, after = (
        re.sub("</?span>", "", (folder / f / "index.html").read_text()) for f in ("before", "after")
    )
    assert "probes gap cells" in before
    assert before.index("The answer") < before.index("How much data")
    first = after[after.index('id="answer"') : after.index('id="gap"')]
    assert "good" in first
    assert "<pre>" not in first
    assert "figure-gap.svg" in after


def test_the_leaderboard_has_a_row_a_model_and_split(written: Any) -> None:
    store, folder = written
    rows = json.loads((Path(folder) / "after" / "leaderboard.json").read_text())
    keys = [(r["model"], r["scheme"], r["group_by"], r["fraction"], r["test"]) for r in rows]
    assert len(keys) == len(set(keys))
    lines = summarise(run(store, ManifestSpec("cells"), RunOptions()).rows)
    for line in lines:
        (row,) = [
            r
            for r in rows
            if (r["model"], r["group_by"], r["scheme"]) == (line.model, "annotation", "monte-carlo")
        ]
        assert row["value"] == pytest.approx(line.mean)
        (m,) = query(
            store,
            "select * from measures where metric = 'auroc' and split = 'annotation' and "
            f"model = '{line.model}'",
        )
        assert (row["ci_low"], row["ci_high"]) == (m["ci_low"], m["ci_high"])


def test_numbers_of_other_annotations_are_said_to_be_so(written: Any, tmp_path: Path) -> None:
    store, _ = written
    (row, *_) = query(store, "select * from annotations limit 1")
    columns = ("annotation_id", "dataset", "slide", "case_id", "domain", "label", "x_l0", "y_l0")
    other = {k: row[k] for k in columns} | {
        "source_id": row["source_id"],
        "label": "mitotic figure",
    }
    flipped = "other" if row["label"] == "mitotic figure" else "mitotic figure"
    store.merge("annotations", [other | {"label": flipped}])
    report(store, [], tmp_path / "r")
    assert "annotations have changed since" in (tmp_path / "r" / "index.html").read_text()
