"""How much of a model's own training speed the loop keeps, and what the patch cache saves.

Runs alone: generates a small demonstration dataset, then times in turn, over several rounds, (a)
training steps on one synthetic batch that lies on the device already, (b) an epoch of the training
loop, that reads, augments and trains, from the patch cache, (c) the same, reading slides, (d)
reading alone, from either. Prints medians and ratios; --json FILE writes them. (b) is to reach 0.9
of (a) on a CPU and 0.85 on a GPU, with the paper's ResNet50; a lighter --backbone shows what the
loop itself costs.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from e2e.data import StoredPatches
from e2e.network import Classifier, loss_of
from e2e.recipe import Recipe, backbone_name
from e2e.train import Machine, Part, logits_of, one_epoch
from embedstore.add import AddOptions, add
from embedstore.crops import fill, located
from embedstore.demo.dataset import write_demo
from embedstore.models.checkpoints import Weights
from embedstore.models.embedder import choose_device, choose_dtype
from embedstore.models.loading import load_embedder, resolve
from embedstore.store import Store
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import connect, fetch_rows


def main() -> None:
    """Time the parts in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=None, help="default: 4 on a CPU, 100 on a GPU")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args)
    for name, value in result.items():
        print(f"{name:36} {value:>12.2f}" if isinstance(value, float) else f"{name:36} {value:>12}")
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long one call of work takes."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(folder: Path, args: argparse.Namespace) -> dict[str, float | str]:
    """Return medians (images a second) and ratios of one run."""
    device = choose_device("auto")
    machine = Machine(device, choose_dtype("auto", device, "bfloat16"), 2)
    n_steps = args.steps or (4 if device.type == "cpu" else 100)
    recipe = Recipe(batch_size=args.batch_size)
    demo = write_demo(folder / "demo", n_slides_per_domain=2)
    uri = str(folder / "store")
    add(uri, "demo", demo.midog_json, AddOptions(slides=demo.slides))
    store = Store.open(uri)
    rows = located(store, "demo")
    cache = PatchCache(store, "demo", recipe.geometry)
    fill(cache, list(rows.values()), recipe.geometry, workers=2)
    kept = fetch_rows(connect(store), "select sum(n_bytes) / count(*) as n from patches")[0]["n"]
    ids = list(np.random.default_rng(0).permutation(list(rows)))
    part = Part(ids, np.arange(len(ids)) % 2)
    sources = {
        "cache": StoredPatches(rows, recipe.geometry, cache),
        "slides": StoredPatches(rows, recipe.geometry, None),
    }
    name = backbone_name(args.backbone)
    embedder = load_embedder(
        name, resolve(name), Weights("random", None, None), dtype="float32", device=device
    )
    model = Classifier(embedder, 2).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    one_cycle = torch.optim.lr_scheduler.ConstantLR(optimizer)
    x = torch.rand(args.batch_size, 3, recipe.patch_px, recipe.patch_px, device=device)
    y = torch.arange(args.batch_size, device=device) % 2

    def synthetic() -> None:
        for _ in range(n_steps):
            loss = loss_of(logits_of(model, x, machine), y).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def loop(source: str) -> None:
        steps = range(n_steps)
        one_epoch(
            model,
            sources[source],
            part,
            recipe,
            machine,
            (optimizer, one_cycle),
            steps,
            0,
            lambda step: None,
        )

    def read(source: str) -> None:
        for k in range(0, 10 * 32, 32):
            sources[source].read(ids[k : k + 32])

    synthetic()
    seen: dict[str, list[float]] = {}
    n_images = n_steps * args.batch_size
    for _ in range(args.rounds):
        for what, n, work in (
            ("synthetic", n_images, synthetic),
            ("loop_cache", n_images, lambda: loop("cache")),
            ("loop_slides", n_images, lambda: loop("slides")),
            ("read_cache", 320, lambda: read("cache")),
            ("read_slides", 320, lambda: read("slides")),
        ):
            seen.setdefault(what, []).append(n / seconds(work, device))
    median = {k: statistics.median(v) for k, v in seen.items()}
    return {
        "backbone": name,
        "device": device.type,
        "dtype": machine.dtype,
        **{f"{k}_images_per_second": v for k, v in median.items()},
        "loop_to_synthetic": median["loop_cache"] / median["synthetic"],
        "loop_from_slides_to_synthetic": median["loop_slides"] / median["synthetic"],
        "cache_to_slides": median["read_cache"] / median["read_slides"],
        "cached_bytes_to_raw": float(kept) / (recipe.geometry.wide().size_px ** 2 * 3),
    }


if __name__ == "__main__":
    main()
