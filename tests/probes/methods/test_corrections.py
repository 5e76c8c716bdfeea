"""Corrections against neuroCombat and definitions; no test row or label has a say in training."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuroCombat import neuroCombat
from sklearn.covariance import ledoit_wolf

from embedstore.errors import UsageError
from embedstore.store import Store
from probes.methods.corrections import CORRECTIONS, FEWEST, Correction, corrected
from probes.reports import report
from probes.runs import RunOptions, run
from probes.scores.comparisons import CompareOptions
from probes.scores.results import summarise
from probes.scores.sides import Side
from probes.splits.spec import ManifestSpec
from probes.studies.compare import compare
from tests.making.commands import call_command
from tests.making.stores import bare_store, put_embeddings, query


def data(seed: int = 0, n: int = 90, d: int = 12) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    groups = np.array([f"g{k}" for k in rng.integers(0, 4, n)], dtype=object)
    x = rng.normal(size=(n, d)) * (1 + rng.random(d))
    for g in range(4):
        x[groups == f"g{g}"] = x[groups == f"g{g}"] * (0.5 + g / 2) + rng.normal(size=d)
    return x.astype(np.float32), groups


def every(n: int) -> tuple[Any, Any]:
    return np.arange(n, dtype=np.intp), np.empty(0, dtype=np.intp)


def test_combat_is_neurocombats() -> None:
    for seed in range(4):
        x, groups = data(seed)
        ours = corrected(x, groups, *every(len(x)), Correction("combat", "slide"))
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            theirs = neuroCombat(
                dat=x.T.astype(np.float64),
                covars=pd.DataFrame({"b": groups.astype(str)}),
                batch_col="b",
            )["data"].T
        assert ours == pytest.approx(theirs, abs=2e-4)


def test_centring_and_whitening_are_their_definitions() -> None:
    x, groups = data(n=400)
    centred = corrected(x, groups, *every(400), Correction("centre", "slide"))
    white = corrected(x, groups, *every(400), Correction("whiten", "slide"))
    for g in set(groups):
        mine = groups == g
        assert centred[mine].mean(axis=0) == pytest.approx(np.zeros(12), abs=1e-5)
        less = x[mine].astype(np.float64) - x[mine].mean(axis=0, dtype=np.float64)
        covariance, _ = ledoit_wolf(less, assume_centered=True)
        values, vectors = np.linalg.eigh(covariance)
        expected = less @ (vectors / np.sqrt(values)) @ vectors.T
        assert white[mine] == pytest.approx(expected, abs=1e-3)


def test_few_rows_of_many_dimensions_are_whitened_too() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 200)).astype(np.float32)
    groups = np.full(20, "g", dtype=object)
    white = corrected(x, groups, *every(20), Correction("whiten", "slide"))
    covariance, _ = ledoit_wolf(x - x.mean(axis=0), assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    expected = (x - x.mean(axis=0)) @ (vectors / np.sqrt(values)) @ vectors.T
    assert white == pytest.approx(expected, abs=1e-3)


@given(
    st.sampled_from(sorted(CORRECTIONS)),
    st.booleans(),
    st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_no_test_row_has_a_say_in_training(kind: str, transductive: bool, seed: int) -> None:
    """Whatever the test rows are, training rows come out the same; so do others' test rows."""
    x, groups = data(seed)
    rng = np.random.default_rng(seed)
    train = np.flatnonzero(groups != "g3")[:50].astype(np.intp)
    others = np.setdiff1d(np.arange(len(x)), train).astype(np.intp)
    correction = Correction(kind, "slide", transductive)
    one = corrected(x, groups, train, others, correction)
    changed = x.copy()
    odd = others[groups[others] == "g3"] if transductive else others[:5]
    changed[odd] = rng.normal(size=(len(odd), x.shape[1])) * 9
    two = corrected(changed, groups, train, others, correction)
    same = np.setdiff1d(np.arange(len(x)), odd)
    assert one[same].tolist() == two[same].tolist()
    if not transductive:
        # A row by itself comes out as with all others.
        alone = corrected(x, groups, train, others[:1], correction)
        assert alone[others[0]].tolist() == one[others[0]].tolist()


def test_a_new_group_speaks_for_itself_only_where_asked() -> None:
    x, groups = data(n=200)
    is_new: Any = groups == "g3"
    train, others = (np.flatnonzero(at).astype(np.intp) for at in (~is_new, is_new))
    plain = corrected(x, groups, train, others, Correction("centre", "slide"))
    asked = corrected(x, groups, train, others, Correction("centre", "slide", True))
    mean = x[train].mean(axis=0, dtype=np.float64)
    assert plain[others] == pytest.approx(x[others] - mean, abs=1e-5)
    assert asked[others].mean(axis=0) == pytest.approx(np.zeros(12), abs=1e-5)
    few = corrected(x, groups, train, others[: FEWEST - 1], Correction("centre", "slide", True))
    assert few[others[0]] == pytest.approx(plain[others[0]])  # too few to say anything
    nameless: Any = np.where(is_new, None, groups)
    none = corrected(x, nameless, train, others, Correction("centre", "slide", True))
    assert none[others] == pytest.approx(plain[others])


def shifted(uri: str) -> Store:
    """Cells whose slides shift vectors far more than labels do: centring by slide undoes it."""
    rng = np.random.default_rng(0)
    slide = np.arange(900) % 30
    positive = rng.random(900) < 0.5
    cells = [
        {
            "slide": f"s{s:02d}.tiff",
            "source_id": f"{k}",
            "label": "mitotic figure" if positive[k] else "other",
        }
        for k, s in enumerate(slide)
    ]
    store = bare_store(uri, "cells", cells)
    x = rng.normal(size=(900, 120))
    x[:, 0] += 2.0 * positive + rng.normal(0, 5, 30)[slide]
    put_embeddings(store, "m", [f"cells/{c['slide']}/{c['source_id']}" for c in cells], x)
    return store


def test_a_planted_shift_is_undone_and_reported_apart(tmp_path: Path) -> None:
    store = shifted(str(tmp_path / "s"))
    spec = ManifestSpec("cells", group_by="slide")
    means = {}
    for options in (
        RunOptions(),
        RunOptions(correct="centre:slide"),
        RunOptions(correct="centre:slide", transductive=True),
        RunOptions(correct="combat:slide", transductive=True),
    ):
        (line,) = summarise(run(store, spec, options).rows)
        means[line.method] = line.mean
    plain, inductive, asked, combat = means.values()
    assert asked > plain + 0.1
    assert combat > plain + 0.1
    assert abs(inductive - plain) < 0.15  # new slides are not known
    sides = [Side.parse("uni:m"), Side.parse("uni+centre-slide-transductive:m")]
    rows, _ = compare(store, spec, sides[0], sides[1:], CompareOptions())
    assert rows[-1]["ci_high"] < 0
    report(store, [], tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text()
    assert "Before and after correction" in page
    apart = (tmp_path / "r" / "remedies.csv").read_text()
    assert "centre-slide-transductive" in apart
    assert "transductive" not in (tmp_path / "r" / "figure1.csv").read_text()
    assert "centre-slide" not in (tmp_path / "r" / "figure1.csv").read_text()
    assert (
        query(
            store,
            "select distinct run_id from probes where run_id in (select run_id from "
            "results where params like '%correct%')",
        )
        == []
    )


def test_wrong_corrections_are_named(tmp_path: Path) -> None:
    for text in ("centre", "centre:colour", "melt:slide", ""):
        with pytest.raises(UsageError, match="centre, whiten, combat"):
            Correction.parse(text, transductive=False)
    store = shifted(str(tmp_path / "s"))
    at = ["--store", store.uri]
    alone = call_command("probes", "run", "cells", "--transductive", *at)
    assert alone.code == 2
    assert "goes with --correct" in alone.err
    both = call_command(
        "probes", "run", "cells", "--correct", "centre:slide", "--pool", "best", *at
    )
    assert both.code == 2
