"""What each addition to the end-to-end training is worth: an ablation, paired on the same splits.

Reads a store whose dataset has its slides (--store, --dataset). Trains the backbone as it is, then
with one addition each, on the same folds kept apart by case (or slide), and compares each with the
plain one on the same test cells: `probes compare`'s difference in AUROC, its interval over cases,
its p-value corrected for the number of additions. Prints a table; --json FILE writes it. What is
recorded is not trained again, so that it goes on where it was stopped.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from e2e.recipe import Recipe
from e2e.run import Listener, TrainOptions, run
from embedstore import Store
from probes import compare
from probes.scores.sides import variant_of
from probes.splits.spec import Asked, ManifestSpec

ADDED: dict[str, dict[str, Any]] = {
    "focal loss, gamma 2": {"focal": 2.0},
    "labels weigh alike": {"weigh": "label"},
    "domains weigh alike": {"weigh": "domain"},
    "MixUp, alpha 0.2": {"mixup": 0.2},
    "HED, 0.05": {"hed": 0.05},
    "test-time augmentation": {"tta": True},
    "soft labels": {"soft_labels": True},
    "LoRA": {"adapt": "lora"},
    "DoRA": {"adapt": "dora"},
}


def main() -> None:
    """Train what is missing, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--weights")
    parser.add_argument("--group-by", default="case")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--min-steps", type=int, default=120)
    parser.add_argument("--patch-px", type=int, default=112)
    parser.add_argument("--only", nargs="*", help=f"of: {', '.join(ADDED)}")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    store = Store(asked.store)
    plain = Recipe(epochs=asked.epochs, min_steps=asked.min_steps, patch_px=asked.patch_px)
    spec = ManifestSpec(asked.dataset, group_by=asked.group_by)
    splits = Asked(folds=list(range(asked.folds)))
    added = {k: v for k, v in ADDED.items() if asked.only is None or k in asked.only}
    for name, extra in {"plain": {}, **added}.items():
        print(f"training: {name}", flush=True)
        recipe = replace(plain, **extra)
        options = TrainOptions(
            backbone=asked.backbone, weights=asked.weights, recipe=recipe, splits=splits
        )
        run(store.open(write=True), spec, options, Listener())
    rows = []
    model = run_model(store, asked.dataset)
    for name, extra in added.items():
        variant = variant_of(json.dumps(replace(plain, **extra).params()))
        found = compare(
            store,
            asked.dataset,
            a=f"e2e+{variant}:{model}",
            b=f"e2e:{model}",
            group_by=asked.group_by,
        )
        of = found[found["fold"].isna()].iloc[0].to_dict()  # over all folds
        rows.append({"added": name, **{k: of[k] for k in KEPT if k in of}})
    for row in rows:
        print(row)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1, default=str))


KEPT = ("difference", "ci_low", "ci_high", "p_value", "n_folds", "n_test", "n_groups")


def run_model(store: Store, dataset: str) -> str:
    """Return the name under which the trained backbone is recorded."""
    sql = f"select distinct model from results where method = 'e2e' and dataset = '{dataset}'"
    (name,) = store.sql(sql)["model"]
    return str(name)


if __name__ == "__main__":
    main()
