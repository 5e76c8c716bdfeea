"""The training loop: one-cycle over a fixed number of steps, the best epoch kept, resumable.

Knows nothing of any store but the folder it is given.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from e2e.augment import augment, eight, mix, plain
from e2e.data import Part, Patches, n_batches, read_batches, rows_of_step
from e2e.folder import Epoch, RunFolder, best_epoch, is_out_of_patience
from e2e.network import Classifier, decision, loss_of
from e2e.recipe import Recipe
from embedstore.errors import EmbedstoreError
from embedstore.models.embedder import DTYPES, choose_device, choose_dtype
from embedstore.slides.reading import usual_threads
from probes.scores.metrics import auroc


@dataclass(frozen=True)
class Machine:
    """What a run is trained on: device, dtype of autocast, threads that read."""

    device: torch.device
    dtype: str
    workers: int

    @classmethod
    def choose(cls, device: str, dtype: str, workers: int | None) -> "Machine":
        """Return the machine of three options, auto and None for what suits this computer."""
        chosen = choose_device(device)
        n_threads = workers or usual_threads()
        return cls(chosen, choose_dtype(dtype, chosen, "bfloat16"), n_threads)


@dataclass(frozen=True)
class Setup:
    """What stays the same from batch to batch: where patches are read, how and on what they run."""

    patches: Patches
    recipe: Recipe
    machine: Machine


@dataclass(frozen=True)
class Learner:
    """A model and what changes it: its optimiser and the one-cycle of the learning rate."""

    model: Classifier
    optimizer: torch.optim.Optimizer
    one_cycle: torch.optim.lr_scheduler.LRScheduler

    @classmethod
    def begin(cls, model: Classifier, recipe: Recipe, n_steps: int) -> "Learner":
        """Return what trains a model over n_steps steps from the first."""
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=recipe.max_lr, weight_decay=recipe.weight_decay)
        one_cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.max_lr, total_steps=n_steps
        )
        return cls(model, optimizer, one_cycle)

    def state(self) -> dict[str, Any]:
        """Return all that training needs to go on from here."""
        return {
            "model": self.model.learnt(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.one_cycle.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""
        self.model.load_learnt(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.one_cycle.load_state_dict(state["schedule"])


class DivergedError(EmbedstoreError):
    """Raised when the loss becomes NaN or infinite."""


def schedule_of(n_train: int, recipe: Recipe) -> tuple[int, int]:
    """Return the number of epochs and of steps in each, at least recipe.min_steps in all."""
    n_of_pass = n_batches(n_train, recipe.batch_size)
    return recipe.epochs, max(n_of_pass, math.ceil(recipe.min_steps / recipe.epochs))


def train(
    model: Classifier,
    setup: Setup,
    *,
    train_on: Part,
    val: Part,
    folder: RunFolder,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> list[Epoch]:
    """Return the curve, with the model of the lowest validation loss in the folder and in `model`.

    Training continues after the last epoch that the folder holds. Without validation rows the last
    epoch is kept. Raises DivergedError where the loss is NaN or infinite; the best model before
    that stays.
    """
    n_epochs, n_steps = schedule_of(len(train_on.ids), setup.recipe)
    n_total = n_epochs * n_steps
    learner = Learner.begin(model, setup.recipe, n_total)
    curve: list[Epoch] = []
    if (last := folder.last()) is not None:
        learner.load(last)
        curve = [Epoch(**row) for row in last["curve"]]
    while len(curve) < n_epochs and not is_out_of_patience(curve, setup.recipe.patience):
        first = len(curve) * n_steps
        started = time.perf_counter()
        on_step(first, n_total)
        loss, n_images = one_epoch(
            learner,
            setup,
            train_on,
            range(first, first + n_steps),
            seed=seed,
            on_step=lambda n_done: on_step(n_done, n_total),
        )
        rate = n_images / (time.perf_counter() - started)
        if not math.isfinite(loss):
            raise DivergedError(_divergence(loss, curve, folder))
        val_loss, val_auroc = _validate(model, setup, val)
        epoch = Epoch(
            epoch=len(curve) + 1,
            step=first + n_steps,
            lr=float(learner.one_cycle.get_last_lr()[0]),
            loss=loss,
            val_loss=val_loss,
            val_auroc=val_auroc,
            images_per_second=rate,
            seconds=time.perf_counter() - started,
        )
        curve.append(epoch)
        _keep(learner, curve, folder)
        on_epoch(epoch)
    model.load_learnt(folder.model())
    return curve


def _keep(learner: Learner, curve: Sequence[Epoch], folder: RunFolder) -> None:
    """Write what an epoch leaves: its model if it is the best so far, and where to go on."""
    if best_epoch(curve) is curve[-1]:
        folder.write_model(learner.model.learnt())
    folder.write_curve(curve)
    folder.write_last({**learner.state(), "curve": [asdict(e) for e in curve]})


def _divergence(loss: float, curve: Sequence[Epoch], folder: RunFolder) -> str:
    kept = "no model is kept"
    if curve:
        kept = f"the model of epoch {best_epoch(curve).epoch} stays in {folder.name}"
    return (
        f"the loss is {loss} in epoch {len(curve) + 1}; {kept}: "
        "try a lower --max-lr, or --dtype float32"
    )


def one_epoch(
    learner: Learner,
    setup: Setup,
    part: Part,
    steps: range,
    *,
    seed: int,
    on_step: Callable[[int], None] = lambda n_done: None,
) -> tuple[float, int]:
    """Return the mean loss of the steps and how many images they took."""
    recipe, machine, n = setup.recipe, setup.machine, len(part.ids)
    targets, weights = _targets(part, learner.model, recipe), part.weights
    learner.model.train()
    torch.manual_seed(seed + steps[0])  # for dropout, if the backbone has any
    batches = (rows_of_step(n, recipe.batch_size, seed, step) for step in steps)
    losses, n_images = torch.zeros(len(steps), device=machine.device), 0
    stream = read_batches(setup.patches, part.ids, batches, workers=machine.workers)
    for k, (rows, crops) in enumerate(stream):
        rng = np.random.default_rng([seed, steps[k]])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        with _memory_for(len(rows)):
            pixels = torch.from_numpy(crops).to(machine.device)
            x = augment(pixels, recipe.patch_px, recipe, generator)
            of = targets[rows].to(machine.device)
            if recipe.mixup:
                x, of = mix(x, of, recipe.mixup, rng)
            w = None if weights is None else torch.from_numpy(weights[rows]).to(machine.device)
            losses[k] = one_step(learner, x, of, machine, focal=recipe.focal, weights=w)
        n_images += len(rows)
        on_step(steps[k] + 1)
        if k % 50 == 0 and not torch.isfinite(losses[k]):
            break
    return float(losses.mean()), n_images


def _targets(part: Part, model: Classifier, recipe: Recipe) -> torch.Tensor:
    """Return codes, or where labels are shared or mixed the share of each label, (n, K)."""
    if part.shares is not None:
        return torch.from_numpy(part.shares)
    codes = torch.from_numpy(part.codes)
    n_labels = max(model.head.out_features, 2)
    return functional.one_hot(codes, n_labels).float() if recipe.mixup else codes


def one_step(
    learner: Learner,
    x: torch.Tensor,
    codes: torch.Tensor,
    machine: Machine,
    *,
    focal: float = 0.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the loss of a batch, before the step down its gradient that is made here."""
    each = loss_of(logits_of(learner.model, x, machine), codes, focal)
    loss = (each if weights is None else each * weights).mean()
    learner.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    learner.optimizer.step()
    learner.one_cycle.step()
    return loss.detach()


def logits_of(model: Classifier, x: torch.Tensor, machine: Machine) -> torch.Tensor:
    """Return float32 logits of patches, computed in the machine's dtype."""
    low = machine.dtype != "float32"
    with torch.autocast(machine.device.type, DTYPES[machine.dtype], enabled=low):
        logits: torch.Tensor = model(x)
    return logits.float()


@contextmanager
def _memory_for(n: int) -> Iterator[None]:
    """Name the option that helps where a batch of n patches does not fit into memory."""
    try:
        yield
    except RuntimeError as e:  # that of the CPU's allocator has no type of its own
        if not isinstance(e, torch.OutOfMemoryError) and "memory" not in str(e):
            raise
        raise EmbedstoreError(
            f"a batch of {n} patches does not fit into memory; what the last epoch left is kept: "
            "run with a smaller --batch-size, or train less of the model with --adapt lora or head"
        ) from e


def score(
    model: Classifier,
    setup: Setup,
    ids: Sequence[str],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    tta: bool = False,
) -> torch.Tensor:
    """Return the logits, float32 (n, 1 or K), of patches as they are; no row changes another.

    tta: their mean over each patch's eight flips and turns.
    """
    recipe, machine = setup.recipe, setup.machine
    model.eval()
    logits = []
    n_each = 2 * recipe.batch_size
    batches = np.array_split(np.arange(len(ids)), max(1, -(-len(ids) // n_each)))
    n_done = 0
    with torch.inference_mode():
        for rows, crops in read_batches(setup.patches, ids, batches, workers=machine.workers):
            with _memory_for(len(rows)):
                x = plain(torch.from_numpy(crops).to(machine.device), recipe.patch_px)
                views = [logits_of(model, v, machine) for v in (eight(x) if tta else (x,))]
                logits.append(torch.stack(views).mean(dim=0).cpu())
            n_done += len(rows)
            on_progress(n_done, len(ids))
    return torch.cat(logits)


def _validate(model: Classifier, setup: Setup, val: Part) -> tuple[float, float]:
    """Return loss and AUROC on the validation rows; NaN without any, AUROC also with one label."""
    if not len(val.ids):
        return math.nan, math.nan
    logits = score(model, setup, val.ids)
    loss = float(loss_of(logits, torch.from_numpy(val.codes)).mean())
    weights = np.ones((1, len(val.codes)))
    return loss, float(auroc(val.codes.astype(np.intp), decision(logits), weights, 0.5)[0])
