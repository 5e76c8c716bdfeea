"""Fusion: names, vectors side by side, means of log-odds; a useless model is left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from embedstore.errors import UsageError
from embedstore.store import Store
from probes.reports import report
from probes.runs import RunOptions, run
from probes.runs.predict import predict
from probes.slices import fusion_of, load_matrix
from probes.slices.fusion import mean_odds, side_by_side
from probes.splits.spec import Asked, ManifestSpec
from probes.studies.fusion import fusion
from probes.studies.verify import verify
from tests.making.commands import call_command
from tests.making.stores import bare_store, put_embeddings, query


def test_names_of_pools_are_no_fusions() -> None:
    known = ["uni", "uni@0.125/cls+mean", "v2", "mean"]
    assert fusion_of("uni@0.125/cls+mean", known) is None
    assert fusion_of("uni", known) is None
    both = fusion_of("uni@0.125/cls+mean+v2", known)
    assert both is not None
    assert both.parts == ("uni@0.125/cls+mean", "v2")
    mean = fusion_of("mean-logit:v2+uni", known)
    assert mean is not None
    assert (mean.parts, mean.mean) == (("v2", "uni"), True)
    for wrong in ("uni+none", "uni+uni", "mean-logit:uni", "mean-logit:none"):
        with pytest.raises(UsageError):
            fusion_of(wrong, known)


def test_no_model_outweighs_another_by_its_scale() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 8)).astype(np.float32), rng.normal(size=(20, 32)).astype(np.float32)
    x = side_by_side([a * 1000, b])
    assert x == pytest.approx(side_by_side([a, b * 0.01]), rel=1e-5)
    assert (x[:, :8] ** 2).sum(axis=1) == pytest.approx(np.full(20, 8), rel=1e-5)
    assert (x[:, 8:] ** 2).sum(axis=1) == pytest.approx(np.full(20, 32), rel=1e-5)


def test_the_mean_of_log_odds_is_the_mean() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 30))
    each: Any = [(np.column_stack((expit(-v), expit(v))), np.column_stack((-v, v))) for v in z]
    p, odds = mean_odds(each)
    assert odds[:, 1] == pytest.approx(z.mean(axis=0))
    assert p[:, 1] == pytest.approx(expit(z.mean(axis=0)))
    without: Any = [(q, None) for q, _ in each]
    assert mean_odds(without)[1] == pytest.approx(odds)


def halves(uri: str) -> Store:
    """Two models that each see a half of the signal, and one that sees none."""
    rng = np.random.default_rng(0)
    n = 900
    y = rng.integers(0, 2, n)
    cells = [
        {"slide": f"s{k % 30:02d}", "source_id": f"{k}", "label": ("other", "mitotic figure")[y[k]]}
        for k in range(n)
    ]
    store = bare_store(uri, "cells", cells)
    ids = [f"cells/{c['slide']}/{c['source_id']}" for c in cells]
    for k, model in enumerate(("left", "right", "useless")):
        x = rng.normal(size=(n, 120))
        x[:, 0] += 2.2 * y * (k < 2)
        put_embeddings(store, model, ids, x)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return halves(str(tmp_path_factory.mktemp("fusion") / "s"))


def test_a_useless_model_is_left_out_and_a_useful_one_is_not(store: Store, tmp_path: Path) -> None:
    measures, _ = fusion(store, "cells", steps=3)
    gains = [m for m in measures if m.metric == "auroc_gain"]
    assert {frozenset(str(m.model).split("+")) for m in gains} == {frozenset({"left", "right"})}
    assert gains[0].ci_low is not None
    assert gains[0].ci_low > 0
    of: Any = {m.model: m for m in measures if m.metric == "auroc"}
    fused = gains[0].model
    assert of[fused].details["n_params"] == 14  # seven each
    assert of[fused].details["gb"] == pytest.approx(2 * 120 * 4 / 1000)
    assert of[f"mean-logit:{fused}"].value == pytest.approx(of[fused].value, abs=0.05)
    rows = query(
        store,
        f"select avg(value) as v from results where model = '{fused}' and metric = 'auroc'",
    )
    assert of[fused].value == pytest.approx(rows[0]["v"])
    report(store, [], tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text()
    assert "Does a second model earn its place?" in page
    assert (tmp_path / "r" / "figure-fusion.png").exists()


def test_a_mean_is_of_the_probes_of_each(store: Store) -> None:
    spec = ManifestSpec("cells", group_by="slide")
    options = RunOptions(
        models=["left", "right", "mean-logit:left+right"], splits=Asked(folds=(0,))
    )
    run(store, spec, options)
    rows = query(
        store,
        "select annotation_id, r.model, decision from predictions p join results r using (run_id) "
        "where r.metric = 'auroc' and r.fold = 0 and p.role = 'test' and r.group_by = 'slide' and "
        "r.model in ('left', 'right', 'mean-logit:left+right')",
    )
    of: dict[str, dict[str, float]] = {}
    for r in rows:
        of.setdefault(r["annotation_id"], {})[r["model"]] = r["decision"]
    for odds in of.values():
        mean = (odds["left"] + odds["right"]) / 2
        assert odds["mean-logit:left+right"] == pytest.approx(mean, abs=1e-9)


def test_a_fusion_is_a_model_everywhere(store: Store) -> None:
    report_ = run(
        store, ManifestSpec("cells"), RunOptions(models=["left+right"], splits=Asked(folds=(0,)))
    )
    run_id = report_.rows[0].run_id
    matrix = load_matrix(store, "left+right", "cells")
    assert matrix.X.shape == (900, 240)
    assert predict(store, run_id, "cells").num_rows == 900
    assert [c for c in verify(store, run_id) if not c.same] == []
    again = run(
        store, ManifestSpec("cells"), RunOptions(models=["left+right"], splits=Asked(folds=(0,)))
    )
    assert again.n_new == 0
    bad = call_command("probes", "run", "cells", "--model", "left+none", "--store", store.uri)
    assert bad.code == 2
    assert "no model 'none'" in bad.err
