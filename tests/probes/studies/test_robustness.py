"""Robustness end to end: a planted confounder is found, by any column, and what lacks is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.store import Store
from embedstore.store.sql import connect_to, fetch_rows
from probes.reports import report
from probes.studies.gap import gap
from probes.studies.robustness import robustness
from tests.making.commands import call_command
from tests.making.stores import bare_store, put_embeddings, query

KEYS = ("metric", "model", "against", "factor")


def scanned(uri: str, n: int = 900) -> Store:
    """Slides of three scanners; `shaken` lies by scanner as much as by label, `steady` does not."""
    rng = np.random.default_rng(0)
    slide = rng.integers(0, 24, n)
    positive = rng.random(n) < 0.5
    cells = [
        {
            "slide": f"s{s:02d}.tiff",
            "source_id": f"{k}",
            "domain": "xyz"[s % 3],
            "label": "mitotic figure" if positive[k] else "other",
        }
        for k, s in enumerate(slide)
    ]
    store = bare_store(uri, "cells", cells)
    slides = fetch_rows(connect_to(store, "slides"), "select * from _slides order by slide")
    store.merge(
        "slides",
        [
            s | {"scanner": "PQR"[n % 3], "attributes": json.dumps({"the species": "ab"[n % 2]})}
            for n, s in enumerate(slides)
        ],
    )
    ids = [f"cells/{c['slide']}/{c['source_id']}" for c in cells]
    for model, strength in (("steady", 0.2), ("shaken", 4.0), ("middle", 1.5)):
        x = rng.normal(size=(n, 160))
        x[:, 0] += 4.0 * positive
        x[np.arange(n), 1 + slide % 3] += strength
        put_embeddings(store, model, ids, x)
    return store


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[Any, Any]]:
    store = scanned(str(tmp_path_factory.mktemp("robust") / "s"))
    measures, notes = robustness(store, "cells", factors=["scanner", "the species", "slide"])
    assert notes == []
    return store, {tuple(getattr(m, k) for k in KEYS): m for m in measures}


def test_a_planted_confounder_is_found(found: Any) -> None:
    _, of = found
    for metric in ("robustness_index", "croma", "croma_worst_tenth", "apd", "nipd"):
        steady, shaken = (of[metric, m, None, "scanner"].value for m in ("steady", "shaken"))
        assert steady > shaken, metric
    told = [of["factor_accuracy", m, None, "scanner"] for m in ("steady", "shaken")]
    assert told[1].value > 0.9
    assert told[0].value < 0.6
    assert told[0].details == {"chance": pytest.approx(1 / 3)}
    pair = of["croma", "steady", "shaken", "scanner"]
    assert pair.value == pytest.approx(
        of["croma", "steady", None, "scanner"].value - of["croma", "shaken", None, "scanner"].value
    )
    assert pair.p_holm < 0.01
    # Of a column that nothing was planted in, models do not differ.
    assert of["factor_accuracy", "shaken", None, "the species"].value < 0.65
    for m in ("steady", "shaken"):
        index = of["robustness_index", m, None, "scanner"]
        assert index.ci_low < index.value < index.ci_high
        assert index.n_groups == 24


def test_it_is_recorded_and_reported_with_what_it_predicts(found: Any, tmp_path: Path) -> None:
    store, of = found
    assert len(query(store, "from measures where study = 'robustness'")) == len(of)
    robustness(store, "cells", factors=["domain", "scanner"])
    gap(store, "cells")
    report(store, [], tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text()
    assert "rank correlation of the margin with the loss in a new domain" in page
    assert "3 models are too few" in page
    assert (tmp_path / "r" / "figure-robustness.png").exists()
    robustness(store, "cells", factors=["scanner", "the species", "slide"])


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    cells = [{"slide": f"s{k % 2}.tiff", "source_id": f"{k}"} for k in range(60)]
    store = bare_store(str(tmp_path / "s"), "cells", cells)
    ids = [f"cells/s{k % 2}.tiff/{k}" for k in range(60)]
    put_embeddings(store, "m", ids, np.random.default_rng(0).normal(size=(60, 5)))
    at = ["--store", store.uri]
    done = call_command("probes", "robustness", "cells", *at)
    assert done.code == 0, done.err  # two slides, and one label on each
    assert "scanner: fewer than two values" in done.err
    for words, text in (
        (["--by", "scanner"], "has no value"),
        (["--by", "domain"], "has one value, 'a'"),
        (["--by", 'no "such" column'], "has no value"),
        (["--model", "none"], "no embeddings of none"),
    ):
        bad = call_command("probes", "robustness", "cells", *words, *at)
        assert bad.code in (1, 2)
        assert text in bad.err, bad.err
    assert call_command("probes", "robustness", "none", *at).code == 1
    one = bare_store(
        str(tmp_path / "t"), "one", [{"slide": "s", "source_id": f"{k}"} for k in range(9)]
    )
    put_embeddings(one, "m", [f"one/s/{k}" for k in range(9)], np.eye(9))
    assert (
        "nothing to be robust to"
        in call_command("probes", "robustness", "one", "--store", one.uri).err
    )
