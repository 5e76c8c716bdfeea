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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from e2e.data import Part, StoredPatches
from e2e.network import Classifier, loss_of
from e2e.recipe import Recipe, registry_name_of
from e2e.train import Learner, Machine, Setup, logits_of, one_epoch
from embedstore.add import AddOptions, add
from embedstore.demo.dataset import write_demo
from embedstore.embeddings.crops import fill, located
from embedstore.models.checkpoints import Weights
from embedstore.models.embedder import choose_device, choose_dtype
from embedstore.models.loading import load_embedder, resolve
from embedstore.store import Store
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import connect, fetch_rows

N_READ = 320
"""How many patches a round of reading alone takes."""


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


@dataclass(frozen=True)
class Bench:
    """A model in training, and its patches as they come from the cache and from slides."""

    learner: Learner
    cached: Setup
    uncached: Setup
    part: Part
    n_steps: int
    cached_bytes: float

    def synthetic(self) -> None:
        """Train on one batch that lies on the device already."""
        recipe, machine = self.cached.recipe, self.cached.machine
        shape = (recipe.batch_size, 3, recipe.patch_px, recipe.patch_px)
        x = torch.rand(shape, device=machine.device)
        y = torch.arange(recipe.batch_size, device=machine.device) % 2
        for _ in range(self.n_steps):
            loss = loss_of(logits_of(self.learner.model, x, machine), y).mean()
            self.learner.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.learner.optimizer.step()

    def loop(self, setup: Setup) -> None:
        """Train an epoch as `e2e run` does."""
        one_epoch(self.learner, setup, self.part, range(self.n_steps), seed=0)

    def read(self, setup: Setup) -> None:
        """Read N_READ patches and do nothing with them."""
        for k in range(0, N_READ, 32):
            setup.patches.read(self.part.ids[k : k + 32])


def prepare(folder: Path, registry_name: str, n_steps: int | None, recipe: Recipe) -> Bench:
    """Return a demonstration dataset with its patches kept, and a model with random weights."""
    device = choose_device("auto")
    machine = Machine(device, choose_dtype("auto", device, "bfloat16"), 2)
    demo = write_demo(folder / "demo", n_slides_per_domain=2)
    uri = str(folder / "store")
    add(uri, "demo", demo.midog_json, AddOptions(slides=demo.slides))
    store = Store.open(uri)
    rows = located(store, "demo")
    cache = PatchCache(store, "demo", recipe.geometry)
    fill(cache, list(rows.values()), recipe.geometry, workers=2)
    (size,) = fetch_rows(connect(store), "select sum(n_bytes) / count(*) as n from patches")
    ids = list(np.random.default_rng(0).permutation(list(rows)))
    entry, random = resolve(registry_name), Weights("random", None, None)
    embedder = load_embedder(registry_name, entry, random, dtype="float32", device=device)
    model = Classifier(embedder, 2).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    return Bench(
        learner=Learner(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer)),
        cached=Setup(StoredPatches(rows, recipe.geometry, cache), recipe, machine),
        uncached=Setup(StoredPatches(rows, recipe.geometry, None), recipe, machine),
        part=Part(ids, np.arange(len(ids)) % 2),
        n_steps=n_steps or (4 if device.type == "cpu" else 100),
        cached_bytes=float(size["n"]),
    )


def measure(folder: Path, args: argparse.Namespace) -> dict[str, float | str]:
    """Return medians (images a second) and ratios of one run."""
    registry_name, recipe = registry_name_of(args.backbone), Recipe(batch_size=args.batch_size)
    bench = prepare(folder, registry_name, args.steps, recipe)
    machine = bench.cached.machine
    bench.synthetic()
    n_images = bench.n_steps * args.batch_size
    works: dict[str, tuple[int, Callable[[], None]]] = {
        "synthetic": (n_images, bench.synthetic),
        "loop_cache": (n_images, lambda: bench.loop(bench.cached)),
        "loop_slides": (n_images, lambda: bench.loop(bench.uncached)),
        "read_cache": (N_READ, lambda: bench.read(bench.cached)),
        "read_slides": (N_READ, lambda: bench.read(bench.uncached)),
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(args.rounds):
        for name, (n, work) in works.items():
            rates[name].append(n / seconds(work, machine.device))
    median = {k: statistics.median(v) for k, v in rates.items()}
    return {
        "backbone": registry_name,
        "device": machine.device.type,
        "dtype": machine.dtype,
        **{f"{k}_images_per_second": v for k, v in median.items()},
        "loop_to_synthetic": median["loop_cache"] / median["synthetic"],
        "loop_from_slides_to_synthetic": median["loop_slides"] / median["synthetic"],
        "cache_to_slides": median["read_cache"] / median["read_slides"],
        "cached_bytes_to_raw": bench.cached_bytes / (recipe.geometry.wide().size_px ** 2 * 3),
    }


if __name__ == "__main__":
    main()
