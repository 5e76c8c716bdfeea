"""Training: the best epoch and no other is kept; killed anywhere, the same model comes out."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from e2e.data import Part
from e2e.folder import Epoch, RunFolder, best_epoch
from e2e.network import Classifier, loss_of, probabilities
from e2e.recipe import Recipe, registry_name_of
from e2e.train import (
    DivergedError,
    Machine,
    Setup,
    schedule_of,
    score,
    train,
)
from embedstore.errors import EmbedstoreError
from embedstore.models.checkpoints import Weights
from embedstore.models.embedder import choose_device
from embedstore.models.loading import load_embedder, resolve
from embedstore.slides.patches import PatchGeometry
from probes.scores.metrics import auroc

CPU = choose_device("cpu")
MACHINE = Machine(CPU, "float32", 2)
NAME = "timm:test_resnet"
RECIPE = Recipe(epochs=3, min_steps=12, batch_size=8, max_lr=3e-3, patch_px=32)
WIDE = PatchGeometry(32).wide().size_px


class Planted:
    """Noise; a dark disc in the middle of what has code 1, by the annotation's id."""

    def __init__(self, codes: np.ndarray) -> None:
        rng = np.random.default_rng(1)
        self.crops = rng.integers(120, 256, (len(codes), WIDE, WIDE, 3), dtype=np.uint8)
        at = np.arange(WIDE) - WIDE / 2
        self.crops[np.ix_(codes == 1, np.abs(at) < 6, np.abs(at) < 6)] //= 3

    def read(self, ids: Any) -> Any:
        return self.crops[[int(i) for i in ids]]


Planting = tuple[Planted, Part, Part]


def parts(n: int = 96, *, seed: int = 0, flip_train: bool = False) -> Planting:
    """A training and a validation part of one planted dataset."""
    codes = np.random.default_rng(seed).integers(0, 2, n)
    ids = [str(k) for k in range(n)]
    n_train = 2 * n // 3
    told = 1 - codes if flip_train else codes
    return (
        Planted(codes),
        Part(ids[:n_train], told[:n_train]),
        Part(ids[n_train:], codes[n_train:]),
    )


def model(seed: int = 0) -> Classifier:
    embedder = load_embedder(
        NAME, resolve(NAME), Weights("random", None, None), dtype="float32", device=CPU
    )
    return Classifier(embedder, 2, seed=seed)


def fit(
    folder: Any, data: Planting, recipe: Any = RECIPE, *, net: Any = None, **options: Any
) -> Any:
    net = net or model()
    patches, train_on, val = data
    curve = train(
        net,
        Setup(patches, recipe, MACHINE),
        train_on=train_on,
        val=val,
        folder=folder,
        seed=7,
        **options,
    )
    return net, curve


def facts(curve: Any) -> list[tuple[Any, ...]]:
    return [(e.epoch, e.step, e.lr, e.loss, e.val_loss, e.val_auroc) for e in curve]


def test_the_schedule_has_steps_enough_however_few_the_annotations() -> None:
    recipe = Recipe(epochs=20, min_steps=500, batch_size=32)
    assert schedule_of(12, recipe) == (20, 25)
    assert schedule_of(13_153, recipe) == (20, 412)
    assert schedule_of(2, replace(recipe, epochs=3)) == (3, 167)


def test_the_learning_rate_is_one_cycle_up_to_its_maximum(tmp_path: Path) -> None:
    rates = []
    recipe = replace(RECIPE, epochs=12, min_steps=96)

    def note(epoch: Any) -> None:
        rates.append(epoch.lr)

    fit(RunFolder(str(tmp_path), "r"), parts(12), recipe, on_epoch=note)
    top = int(np.argmax(rates))
    assert max(rates) == pytest.approx(3e-3, rel=0.1)
    assert 2 <= top <= 5  # 30% of the way
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 3e-3 / 1000


def test_the_model_kept_is_the_best_one_not_the_last(tmp_path: Path) -> None:
    """Train labels say the opposite of validation's: every epoch makes validation worse."""
    data = parts(flip_train=True)
    states = []
    net = model()

    def note(epoch: Any) -> None:
        states.append({k: v.clone() for k, v in net.learnt().items()})

    recipe = replace(RECIPE, epochs=4, min_steps=48)
    folder = RunFolder(str(tmp_path), "r")
    net, curve = fit(folder, data, recipe, net=net, on_epoch=note)
    losses = [e.val_loss for e in curve]
    best = best_epoch(curve)
    assert best.val_loss == min(losses)
    assert best.epoch < len(curve)
    assert losses[-1] > best.val_loss + 0.1
    kept = folder.model()
    assert all(torch.equal(kept[k], states[best.epoch - 1][k]) for k in kept)
    assert not all(torch.equal(kept[k], states[-1][k]) for k in kept)
    # And it is the one that scores from now on.
    logits = score(net, Setup(data[0], recipe, MACHINE), data[2].ids)
    loss = loss_of(logits, torch.from_numpy(data[2].codes)).mean()
    assert float(loss) == pytest.approx(best.val_loss, abs=1e-5)


@pytest.mark.parametrize("after", [1, 2])
def test_interrupted_after_any_epoch_the_same_model_comes_out(tmp_path: Path, after: int) -> None:
    data = parts()
    whole, curve = fit(RunFolder(str(tmp_path), "whole"), data)

    class Killed(Exception):  # noqa: N818
        pass

    def kill(epoch: Any) -> None:
        if epoch.epoch == after:
            raise Killed

    folder = RunFolder(str(tmp_path), "parted")
    with pytest.raises(Killed):
        fit(folder, data, on_epoch=kill)
    resumed, again = fit(folder, data, net=model(seed=3))  # begun anew, then loaded
    assert facts(again) == facts(curve)
    one, other = whole.learnt(), resumed.learnt()
    assert all(torch.equal(one[k], other[k]) for k in one)
    done: list[Epoch] = []
    _, once_more = fit(folder, data, net=model(seed=4), on_epoch=done.append)
    assert done == []
    assert facts(once_more) == facts(curve)


def test_a_planted_signal_is_learnt_and_a_shuffled_one_is_not(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=4, min_steps=120)
    test, ids = Planted(np.arange(200) % 2), [str(k) for k in range(200)]
    rng = np.random.default_rng(5)
    told: dict[str, Callable[[Any], Any]] = {
        "planted": lambda codes: codes,
        "shuffled": rng.permutation,
    }
    found = {}
    for what, labels in told.items():
        patches, train_on, val = parts(240)
        train_on, val = (Part(p.ids, labels(p.codes)) for p in (train_on, val))
        net, _ = fit(RunFolder(str(tmp_path), what), (patches, train_on, val), recipe)
        p = probabilities(score(net, Setup(test, recipe, MACHINE), ids)).numpy()
        truth = labels(np.arange(200) % 2)
        found[what] = float(auroc(truth, p, np.ones((1, 200)), 0.5)[0])
    assert found["planted"] > 0.95
    assert 0.35 < found["shuffled"] < 0.65


def test_patience_stops_early_and_is_off_by_default(tmp_path: Path) -> None:
    data = parts(flip_train=True)
    recipe = replace(RECIPE, epochs=8, min_steps=48)
    _, whole = fit(RunFolder(str(tmp_path), "whole"), data, recipe)
    assert len(whole) == 8
    _, cut = fit(RunFolder(str(tmp_path), "cut"), data, replace(recipe, patience=2))
    assert len(cut) == best_epoch(cut).epoch + 2 < 8


def test_a_loss_that_is_no_number_stops_the_run_and_the_last_good_model_stays(
    tmp_path: Path,
) -> None:
    data, net = parts(), model()
    folder, good = RunFolder(str(tmp_path), "r"), {}

    def spoil(epoch: Any) -> None:
        good.update({k: v.clone() for k, v in net.learnt().items()})
        with torch.no_grad():
            net.head.weight.fill_(math.nan)

    with pytest.raises(DivergedError, match=r"epoch 2; the model of epoch 1 stays .*--max-lr"):
        fit(folder, data, net=net, on_epoch=spoil)
    kept = folder.model()
    assert all(torch.equal(kept[k], good[k]) for k in kept)


def test_a_first_epoch_that_diverges_keeps_no_model_and_says_so(tmp_path: Path) -> None:
    net = model()
    with torch.no_grad():
        net.head.weight.fill_(math.nan)
    with pytest.raises(DivergedError, match="in epoch 1; no model is kept: try a lower --max-lr"):
        fit(RunFolder(str(tmp_path), "r"), parts(), net=net)
    assert not RunFolder(str(tmp_path), "r").has("model.safetensors")


def test_without_validation_rows_the_last_epoch_is_kept(tmp_path: Path) -> None:
    patches, train_on, _ = parts(24)
    folder = RunFolder(str(tmp_path), "r")
    net, curve = fit(folder, (patches, train_on, Part([], np.array([], dtype=np.int64))))
    assert best_epoch(curve).epoch == 3
    assert math.isnan(curve[-1].val_loss)
    assert torch.equal(folder.model()["head.weight"], net.head.weight)


def test_validation_of_one_label_still_chooses_by_its_loss(tmp_path: Path) -> None:
    patches, train_on, val = parts(48)
    ones = [i for i, c in zip(val.ids, val.codes, strict=True) if c == 1]
    _, curve = fit(
        RunFolder(str(tmp_path), "r"), (patches, train_on, Part(ones, np.ones(len(ones), int)))
    )
    assert all(math.isnan(e.val_auroc) for e in curve)
    assert best_epoch(curve).val_loss == min(e.val_loss for e in curve)


def test_memory_that_does_not_suffice_says_which_option_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = model()

    def too_large(x: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(net, "forward", too_large)
    with pytest.raises(EmbedstoreError, match="smaller --batch-size"):
        fit(RunFolder(str(tmp_path), "r"), parts(24), net=net)


def test_what_a_recipe_does_not_allow_is_named_all_at_once() -> None:
    with pytest.raises(EmbedstoreError) as e:
        Recipe(adapt="some", epochs=0, batch_size=1, max_lr=2.0, blur=-1.0).check()
    for option in ("--adapt some", "--epochs 0", "--batch-size 1", "--max-lr 2.0", "--blur -1.0"):
        assert option in str(e.value)
    Recipe().check()


def test_backbones_by_name() -> None:
    assert registry_name_of("resnet50") == "resnet50-imagenet"
    assert registry_name_of("uni") == "uni"
    assert registry_name_of("convnext_tiny") == registry_name_of("timm:convnext_tiny")
    with pytest.raises(EmbedstoreError, match="unknown model"):
        registry_name_of("hub:other")
