"""What the way a published probe was trained costs: AMi-Br's authors' training beside ours.

Reads a store that `probes reproduce ami-br` was run on (--store, --model). On the same folds and
vectors it trains a linear layer as Banerjee et al. 2026 do for six of seven models (labels drawn
alike, Adam at 5e-5 in batches of 8, the rate halved after three epochs without gain, the best epoch
on validation, at most 100, stopped after 15 without gain) and scores the same test cells at 0.5.
Prints mean and SD over the folds of both, and how much higher ours is; --json FILE writes all.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch.nn import functional

from embedstore.reading.vectors import vectors_of
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
from probes.studies.reproduce import reproduce

EPOCHS, PATIENCE, HALVED_AFTER, BATCH, RATE = 100, 15, 3, 8, 5e-5


def trained(x: torch.Tensor, y: torch.Tensor, val: tuple[Any, Any], seed: int) -> torch.nn.Module:
    """Return the layer of the best epoch: x (n, d), y (n,) 0 or 1, val vectors and labels."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(x.shape[1], 1)
    adam = torch.optim.Adam(layer.parameters(), lr=RATE, weight_decay=1e-5)
    rate = torch.optim.lr_scheduler.ReduceLROnPlateau(
        adam, mode="max", factor=0.5, patience=HALVED_AFTER, min_lr=1e-7
    )
    weight = 1 / torch.bincount(y.long()).double()[y.long()]
    best, kept, since = -1.0, {}, 0
    for _ in range(EPOCHS):
        drawn = torch.multinomial(weight, len(y), replacement=True)
        for rows in drawn.split(BATCH):
            loss = functional.binary_cross_entropy_with_logits(layer(x[rows])[:, 0], y[rows])
            adam.zero_grad()
            torch.autograd.backward(loss)
            adam.step()
        with torch.inference_mode():
            said = (layer(val[0])[:, 0] > 0).numpy()
        value = float(balanced_accuracy_score(val[1], said))
        if value > best:
            best, since = value, 0
            kept = {k: v.clone() for k, v in layer.state_dict().items()}
        else:
            since += 1
            if since >= PATIENCE:
                break
        rate.step(value)
    layer.load_state_dict(kept)
    return layer


def theirs(store: Store, model: str, manifest: str) -> dict[str, list[float]]:
    """Return balanced accuracy at 0.5 and AUROC of each fold, trained their way."""
    ids = fetch_rows(
        connect(store),
        "select fold, role, m.annotation_id, a.label = 'atypical' as hit from manifests m join "
        "annotations a using (annotation_id) where manifest_id = $id order by all",
        {"id": manifest},
    )
    vectors, about = vectors_of(store, model, "ami-br", None, "annotation_id")
    place = {name: k for k, name in enumerate(about["annotation_id"].to_pylist())}
    x, y = torch.from_numpy(vectors), torch.zeros(len(vectors))
    for r in ids:
        y[place[r["annotation_id"]]] = float(r["hit"])
    found: dict[str, list[float]] = {"balanced accuracy": [], "AUROC": []}
    for fold in sorted({r["fold"] for r in ids}):

        def rows(role: str, fold: int = fold) -> NDArray[np.intp]:
            mine = [r for r in ids if (r["fold"], r["role"]) == (fold, role)]
            return np.array([place[r["annotation_id"]] for r in mine])

        train, val, test = rows("train"), rows("val"), rows("test")
        layer = trained(x[train], y[train], (x[val], y[val].numpy()), fold)
        with torch.inference_mode():
            logits = layer(x[test])[:, 0].numpy()
        truth = y[test].numpy()
        found["balanced accuracy"].append(float(balanced_accuracy_score(truth, logits > 0)))
        found["AUROC"].append(float(roc_auc_score(truth, logits)))
        print(f"fold {fold}: {', '.join(f'{k} {v[-1]:.4f}' for k, v in found.items())}", flush=True)
    return found


def main() -> None:
    """Run both ways and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    store = Store.open(args.store, write=True)
    done = reproduce(store, "ami-br", models=[args.model])
    ours = {m.metric: m for m in done.measures if m.against is None and m.split == "all"}
    found = theirs(store, args.model, done.manifests[0])
    for metric, values in found.items():
        m = ours["auroc" if metric == "AUROC" else "balanced_accuracy_at_prevalence"]
        mean, sd = np.mean(values), np.std(values, ddof=1)
        print(
            f"{metric}: trained as published {mean:.4f} ± {sd:.4f}, as here {m.value:.4f} ± "
            f"{m.details['sd']:.4f} ({m.ci_low:.3f} to {m.ci_high:.3f} over test slides), "
            f"{(m.value or 0) - mean:+.4f}"
        )
    if args.json:
        args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
