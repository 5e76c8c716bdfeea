"""The verb `predict`: the scores of a recorded probe for any dataset."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import softmax

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect, fetch_rows, literal
from probes.methods.fits import linear_methods
from probes.methods.table import METHODS
from probes.methods.together import logits
from probes.scores.predictions import Scored
from probes.slices import load_matrix


def predict(store: Store, run_id: str, dataset: str) -> pa.Table:
    """Return annotation_id, label and score of every embedded annotation of a dataset.

    Of two labels the rows are of the positive one, else one row a label. The probe is a linear one
    that `probes run` recorded; EmbedstoreError otherwise, or where its model has no embeddings of
    the dataset.
    """
    con = connect(store)
    check_dataset(store, con, dataset)
    probe = _probe(con, run_id, dataset)
    matrix = load_matrix(store, probe["model"], dataset, probe["views"])
    labels = probe["labels"]
    coef = np.asarray(probe["coef"]).reshape(-1, matrix.X.shape[1])
    z = logits(matrix.X, None, coef, np.asarray(probe["intercept"]))
    each = softmax(z, axis=1)[matrix.places]
    return Scored(matrix.ids, each.mean(axis=1), labels).table()


def _probe(con: Any, run_id: str, dataset: str) -> dict[str, Any]:
    probes = fetch_rows(con, f"select * from _probes where run_id = {literal(run_id)}")
    if probes:
        return probes[0]
    sql = f"select * from all_results where run_id = {literal(run_id)} limit 1"
    if runs := fetch_rows(con, sql):
        raise EmbedstoreError(
            f"run {run_id} ({runs[0]['method']}) keeps nothing to predict with, only linear probes "
            f"({', '.join(linear_methods())}) do; score '{dataset}' with "
            f"`{_instead(runs[0], dataset)}`"
        )
    like = fetch_rows(con, "select run_id from _probes order by created_at desc limit 1")
    example = like[0]["run_id"] if like else "none yet"
    raise EmbedstoreError(
        f"no run '{run_id}'; `embedstore sql \"select distinct run_id, method, model, fold, "
        f'fraction from results"` lists them (the newest: {example})'
    )


def _instead(run: Mapping[str, Any], dataset: str) -> str:
    """Return the command that scores a dataset with a run whose method keeps no coefficients."""
    if run["method"] not in METHODS:
        return shlex.join(["e2e", "predict", run["run_id"], dataset])
    options = {
        "manifest": run["manifest_id"],
        "model": run["model"],
        "method": run["method"],
        "fold": run["fold"],
        "fraction": run["fraction"],
        "train-domain": run["train_domain"],
        "target": run["target"],
        "views": json.loads(run["params"]).get("views"),
        "eval-dataset": dataset,
    }
    words = [w for k, v in options.items() if v is not None for w in (f"--{k}", str(v))]
    return shlex.join(["probes", "run", run["dataset"], *words])
