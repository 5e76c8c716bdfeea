"""The training loop: one-cycle over a fixed number of steps, the best epoch kept, resumable.

Knows nothing of any store but the folder it is given.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from e2e.augment import augment, plain
from e2e.data import Patches, n_batches, read_batches, rows_of_step
from e2e.folder import RunFolder
from e2e.network import Classifier, loss_of, probabilities
from e2e.recipe import Recipe
from embedstore.errors import EmbedstoreError
from embedstore.models.embedder import DTYPES
from probes.scores.metrics import auroc


@dataclass(frozen=True)
class Part:
    """Annotations of one role: ids, and label codes int64 (n,)."""

    ids: Sequence[str]
    codes: NDArray[np.int64]


@dataclass(frozen=True)
class Machine:
    """What a run is trained on: device, dtype of autocast, threads that read."""

    device: torch.device
    dtype: str
    workers: int


@dataclass(frozen=True)
class Epoch:
    """One line of the curve. loss is the mean over the epoch's steps, augmented; NaN: not known."""

    epoch: int
    step: int
    lr: float
    loss: float
    val_loss: float
    val_auroc: float
    images_per_second: float
    seconds: float


class DivergedError(EmbedstoreError):
    """The loss is no number any more."""


def schedule_of(n_train: int, recipe: Recipe) -> tuple[int, int]:
    """Return the number of epochs and of steps in each, at least recipe.min_steps in all."""
    a_pass = n_batches(n_train, recipe.batch_size)
    return recipe.epochs, max(a_pass, math.ceil(recipe.min_steps / recipe.epochs))


def train(
    model: Classifier,
    patches: Patches,
    train_on: Part,
    val: Part,
    recipe: Recipe,
    machine: Machine,
    folder: RunFolder,
    *,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> list[Epoch]:
    """Train, and leave the model of the lowest validation loss in the folder and in `model`.

    It goes on after the last epoch that the folder knows. Without validation rows the last epoch is
    kept. Raises DivergedError where the loss is NaN or infinite; the best model before that stays.
    """
    n_epochs, n_steps = schedule_of(len(train_on.ids), recipe)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=recipe.max_lr, weight_decay=recipe.weight_decay)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.max_lr, total_steps=n_epochs * n_steps
    )
    curve: list[Epoch] = []
    if (last := folder.last()) is not None:
        model.load_learnt(last["model"])
        optimizer.load_state_dict(last["optimizer"])
        one_cycle.load_state_dict(last["schedule"])
        curve = [Epoch(**row) for row in last["curve"]]
    while len(curve) < n_epochs and not _is_patient(curve, recipe.patience):
        first = len(curve) * n_steps
        steps = range(first, first + n_steps)
        started = time.perf_counter()
        on_step(first, n_epochs * n_steps)
        loss, n_seen = one_epoch(
            model,
            patches,
            train_on,
            recipe,
            machine,
            (optimizer, one_cycle),
            steps,
            seed,
            lambda step: on_step(step, n_epochs * n_steps),
        )
        rate = n_seen / (time.perf_counter() - started)
        if not math.isfinite(loss):
            kept = f"the model of epoch {_best(curve)} stays in {folder.name}"
            raise DivergedError(
                f"the loss is {loss} in epoch {len(curve) + 1}; "
                f"{kept if curve else 'no model is kept'}: try a lower --max-lr, or --dtype float32"
            )
        val_loss, val_auroc = _validate(model, patches, val, recipe, machine)
        curve.append(
            Epoch(
                len(curve) + 1,
                first + n_steps,
                float(one_cycle.get_last_lr()[0]),
                loss,
                val_loss,
                val_auroc,
                rate,
                time.perf_counter() - started,
            )
        )
        if _best(curve) == len(curve):
            folder.write_model(model.learnt())
        folder.write_curve([asdict(e) for e in curve])
        folder.write_last(
            {
                "model": model.learnt(),
                "optimizer": optimizer.state_dict(),
                "schedule": one_cycle.state_dict(),
                "curve": [asdict(e) for e in curve],
            }
        )
        on_epoch(curve[-1])
    model.load_learnt(folder.model())
    return curve


def one_epoch(
    model: Classifier,
    patches: Patches,
    part: Part,
    recipe: Recipe,
    machine: Machine,
    optimizers: tuple[torch.optim.Optimizer, Any],
    steps: range,
    seed: int,
    on_step: Callable[[int], None],
) -> tuple[float, int]:
    """Return the mean loss of the steps and how many images they took."""
    optimizer, one_cycle = optimizers
    n, device = len(part.ids), machine.device
    codes = torch.from_numpy(part.codes)
    model.train()
    torch.manual_seed(seed + steps[0])  # for dropout, if the backbone has any
    batches = (rows_of_step(n, recipe.batch_size, seed, step) for step in steps)
    losses, n_seen = torch.zeros(len(steps), device=device), 0
    stream = read_batches(patches, part.ids, batches, workers=machine.workers)
    for k, (rows, crops) in enumerate(stream):
        draw = int(np.random.default_rng([seed, steps[k]]).integers(2**62))
        generator = torch.Generator().manual_seed(draw)
        with _memory_for(len(rows)):
            x = augment(torch.from_numpy(crops).to(device), recipe.patch_px, recipe, generator)
            loss = loss_of(logits_of(model, x, machine), codes[rows].to(device)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        one_cycle.step()
        losses[k] = loss.detach()
        n_seen += len(rows)
        on_step(steps[k] + 1)
        if k % 50 == 0 and not torch.isfinite(losses[k]):
            break
    return float(losses.mean()), n_seen


def logits_of(model: Classifier, x: torch.Tensor, machine: Machine) -> torch.Tensor:
    """Return float32 logits of patches, computed in the machine's dtype."""
    low = machine.dtype != "float32"
    with torch.autocast(machine.device.type, DTYPES[machine.dtype], enabled=low):
        logits: torch.Tensor = model(x)
    return logits.float()


@contextmanager
def _memory_for(n: int) -> Iterator[None]:
    """Say which option helps where a batch of n patches does not fit into memory."""
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
    patches: Patches,
    ids: Sequence[str],
    recipe: Recipe,
    machine: Machine,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> torch.Tensor:
    """Return the logits, float32 (n, 1 or K), of patches as they are; no row changes another."""
    model.eval()
    found = []
    batches = np.array_split(np.arange(len(ids)), max(1, -(-len(ids) // (2 * recipe.batch_size))))
    done = 0
    with torch.inference_mode():
        for rows, crops in read_batches(patches, ids, batches, workers=machine.workers):
            with _memory_for(len(rows)):
                x = plain(torch.from_numpy(crops).to(machine.device), recipe.patch_px)
                found.append(logits_of(model, x, machine).cpu())
            done += len(rows)
            on_progress(done, len(ids))
    return torch.cat(found)


def _validate(
    model: Classifier, patches: Patches, val: Part, recipe: Recipe, machine: Machine
) -> tuple[float, float]:
    """Return loss and AUROC on the validation rows; NaN without any, AUROC also with one label."""
    if not len(val.ids):
        return math.nan, math.nan
    logits = score(model, patches, val.ids, recipe, machine)
    loss = float(loss_of(logits, torch.from_numpy(val.codes)).mean())
    p = probabilities(logits).numpy()
    one = np.ones((1, len(val.codes)))
    return loss, float(auroc(val.codes.astype(np.intp), p, one, 0.5)[0])


def _best(curve: Sequence[Epoch]) -> int:
    """Return the epoch of the lowest validation loss, the first of equals; the last without any."""
    known = [e for e in curve if not math.isnan(e.val_loss)]
    return min(known, key=lambda e: e.val_loss).epoch if known else len(curve)


def best_epoch(curve: Sequence[Epoch]) -> Epoch:
    """Return the epoch whose model is kept."""
    return curve[_best(curve) - 1]


def _is_patient(curve: Sequence[Epoch], patience: int | None) -> bool:
    return patience is not None and len(curve) - _best(curve) >= patience
