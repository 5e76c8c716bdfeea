"""What winners add to a training: each by its definition, off where nothing is said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from e2e.augment import HED, eight, mix, restain
from e2e.data import Part, even_weights, vote_shares
from e2e.folder import RunFolder
from e2e.network import Classifier, loss_of
from e2e.predict import predict
from e2e.recipe import Recipe
from e2e.run import TrainOptions, run
from e2e.train import Machine, Setup, score, train
from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.models.checkpoints import Weights
from embedstore.models.embedder import choose_device
from embedstore.models.loading import load_embedder, resolve
from embedstore.slides.patches import D4, PatchGeometry, view_of
from embedstore.store import Store
from probes.scores.sides import variant_of
from probes.splits.asked import splits_for
from probes.splits.spec import ManifestSpec
from tests.making.commands import call_command
from tests.making.slides import TinyDataset, make_tiny, write_csv
from tests.making.stores import query_of
from tests.making.training import OPTIONS, PLAIN, SMALL

CPU = choose_device("cpu")
MACHINE = Machine(CPU, "float32", 1)

floats = st.floats(-6, 6)


@given(
    st.lists(st.tuples(floats, floats, floats), min_size=1, max_size=6),
    st.floats(0, 5),
    st.booleans(),
)
@settings(max_examples=60)
def test_the_loss_is_that_of_its_definition(
    rows: list[tuple[float, float, float]], gamma: float, is_binary: bool
) -> None:
    z = np.array(rows)
    rng = np.random.default_rng(len(rows))
    if is_binary:
        p1 = 1 / (1 + np.exp(-z[:, 0]))
        p, logits = np.stack((1 - p1, p1), axis=1), torch.tensor(z[:, :1])
    else:
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        logits = torch.tensor(z)
    shares = rng.dirichlet(np.ones(p.shape[1]), size=len(z))
    expected = -(shares * (1 - p) ** gamma * np.log(p)).sum(axis=1)
    assert loss_of(logits, torch.tensor(shares), gamma).numpy() == pytest.approx(expected, rel=1e-6)
    codes = rng.integers(0, p.shape[1], len(z))
    own = p[np.arange(len(z)), codes]
    hard = loss_of(logits, torch.tensor(codes), gamma).numpy()
    assert hard == pytest.approx(-((1 - own) ** gamma) * np.log(own), rel=1e-6, abs=1e-9)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30))
def test_groups_weigh_alike(groups: list[str]) -> None:
    weights = even_weights(groups)
    assert weights.mean() == pytest.approx(1, rel=1e-5)
    totals = [weights[[g == one for g in groups]].sum() for one in set(groups)]
    assert totals == pytest.approx([totals[0]] * len(totals), rel=1e-5)


def test_votes_are_shares_and_what_has_none_is_its_own_label() -> None:
    votes = [["a", "a", "b"], ["b"], [], ["x", "a"], ["x"]]
    shares = vote_shares(votes, np.array([0, 0, 1, 1, 1]), ["a", "b"])
    assert shares == pytest.approx(np.array([[2 / 3, 1 / 3], [0, 1], [0, 1], [1, 0], [0, 1]]))


def images(n: int = 3, size: int = 6) -> torch.Tensor:
    return torch.rand((n, 3, size, size), generator=torch.Generator().manual_seed(4)) * 0.9 + 0.05


def test_restaining_by_the_pixel_as_ruifrok_and_tellez_have_it() -> None:
    """Each pixel by hand: density, stains, changed, and back."""
    x = images()
    rng = np.random.default_rng(2)
    factors, shifts = rng.uniform(0.8, 1.2, (3, 3)), rng.uniform(-0.1, 0.1, (3, 3))
    found = restain(x, torch.tensor(factors).float(), torch.tensor(shifts).float()).numpy()
    to_rgb = np.array(HED)
    for n in range(3):
        for i, j in ((0, 0), (2, 5), (5, 1)):
            density = np.log(x[n, :, i, j].numpy().astype(float)) / np.log(1e-6)
            stains = density @ np.linalg.inv(to_rgb)
            changed = stains * factors[n] + shifts[n]
            expected = np.exp(changed @ to_rgb * np.log(1e-6)).clip(0, 1)
            assert found[n, :, i, j] == pytest.approx(expected, abs=1e-4)
    same = restain(x, torch.ones(3, 3), torch.zeros(3, 3))
    assert same.numpy() == pytest.approx(x.numpy(), abs=1e-4)
    white = restain(torch.ones(1, 3, 4, 4), torch.full((1, 3), 1.2), torch.zeros(1, 3))
    assert white.numpy() == pytest.approx(1, abs=1e-5)
    black = restain(torch.zeros(1, 3, 4, 4), torch.full((1, 3), 0.8), torch.zeros(1, 3))
    assert torch.isfinite(black).all()


@given(st.integers(0, 1000), st.floats(0.05, 5))
@settings(max_examples=25)
def test_mixup_mixes_patches_and_labels_by_one_part(seed: int, alpha: float) -> None:
    x, shares = images(5), torch.eye(5)
    mixed, of = mix(x, shares, alpha, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    part, order = rng.beta(alpha, alpha), rng.permutation(5)
    expected = part * x.numpy() + (1 - part) * x.numpy()[order]
    assert mixed.numpy() == pytest.approx(expected, abs=1e-5)
    # The labels say themselves of which patches each is made.
    rebuilt = torch.einsum("nk,kchw->nchw", of, x).numpy()
    assert mixed.numpy() == pytest.approx(rebuilt, abs=1e-5)
    assert of.sum(dim=1).numpy() == pytest.approx(1, abs=1e-5)


def test_the_eight_are_the_views_of_a_patch() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    x = torch.from_numpy(crop).permute(2, 0, 1)[None]
    for name, view in zip(D4, eight(x), strict=True):
        there = view_of(crop, name, "a", PatchGeometry(8))
        assert (view[0].permute(1, 2, 0).numpy() == there).all(), name


class Noise:
    def __init__(self, n: int, wide: int) -> None:
        rng = np.random.default_rng(1)
        self.crops = rng.integers(0, 256, (n, wide, wide, 3), dtype=np.uint8)

    def read(self, ids: Any) -> Any:
        return self.crops[[int(i) for i in ids]]


def network(name: str = "timm:test_resnet", n_labels: int = 2, **options: Any) -> Classifier:
    embedder = load_embedder(
        name, resolve(name), Weights("random", None, None), dtype="float32", device=CPU
    )
    return Classifier(embedder, n_labels, **options)


@pytest.mark.parametrize("n_labels", [2, 3])
def test_tta_is_the_mean_of_eight(n_labels: int) -> None:
    wide = PatchGeometry(32).wide().size_px
    patches, net = Noise(5, wide), network(n_labels=n_labels)
    setup = Setup(patches, Recipe(patch_px=32, batch_size=2), MACHINE)
    ids = [str(k) for k in range(5)]
    found = score(net, setup, ids, tta=True).numpy()
    each = []
    for is_mirrored, quarters in D4.values():
        turned = Noise(5, wide)
        turned.crops = np.rot90(
            patches.crops[:, :, ::-1] if is_mirrored else patches.crops, quarters, (1, 2)
        ).copy()
        each.append(score(net, Setup(turned, setup.recipe, MACHINE), ids).numpy())
    assert found == pytest.approx(np.mean(each, axis=0), abs=1e-4)
    assert np.abs(np.std(each, axis=0)).max() > 1e-3


# ------------------------------------------------------------------------------- recipes


OLD = {
    "adapt": "full",
    "epochs": 20,
    "min_steps": 500,
    "batch_size": 32,
    "max_lr": 1e-4,
    "weight_decay": 0.0,
    "patience": None,
    "jitter": 0.2,
    "hue": 0.05,
    "blur": 1.5,
    "rotate": 180.0,
    "flip": True,
    "patch_px": 224,
    "mpp_out": 0.25,
}


def test_a_recipe_without_extras_is_what_it_was() -> None:
    """Else every recorded run would be trained again."""
    assert Recipe().params() == OLD
    assert Recipe(**json.loads(json.dumps(OLD))) == Recipe()
    assert Recipe(adapt="lora").params() == {**OLD, "adapt": "lora", "lora_rank": 16}


EXTRAS: dict[str, Any] = {
    "soft_labels": True,
    "focal": 2.0,
    "weigh": "domain",
    "mixup": 0.2,
    "hed": 0.05,
    "tta": True,
}


def test_a_recipe_says_what_is_added_and_a_side_is_called_by_it() -> None:
    for key, value in EXTRAS.items():
        assert Recipe(**{key: value}).params() == {**OLD, key: value}
    assert variant_of(json.dumps(Recipe().params())) is None
    whole = Recipe(adapt="dora", **EXTRAS)
    said = variant_of(json.dumps(whole.params()))
    assert said == "dora-soft-focal2-mixup0.2-hed0.05-weigh.domain-tta"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("focal", -1.0, "--focal -1.0 (allowed: 0 to 10)"),
        ("weigh", "slide", "none, label, domain"),
        ("mixup", 11.0, "--mixup"),
        ("hed", 0.6, "--hed"),
        ("adapt", "qlora", "full, lora, dora, head"),
    ],
)
def test_bounds(key: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError) as e:
        Recipe(**{key: value}).check()
    assert said in str(e.value)


class Planted(Noise):
    """Noise; a dark square in the middle of what has code 1."""

    def __init__(self, codes: np.ndarray, wide: int) -> None:
        super().__init__(len(codes), wide)
        self.crops = self.crops // 2 + 120
        middle = slice(wide // 2 - 6, wide // 2 + 6)
        self.crops[codes == 1, middle, middle] //= 3


@pytest.mark.parametrize(
    "extra", [{"focal": 2.0}, {"mixup": 0.3}, {"hed": 0.05}, {"shares": True}, {"weights": True}]
)
def test_each_learns_and_goes_on_as_if_never_stopped(tmp_path: Path, extra: dict[str, Any]) -> None:
    codes = np.random.default_rng(0).integers(0, 2, 96)
    ids = [str(k) for k in range(96)]
    patches = Planted(codes, PatchGeometry(32).wide().size_px)
    learnt = Part(ids[:64], codes[:64])
    if "shares" in extra:
        shares = np.full((64, 2), 0.1, dtype=np.float32)
        shares[np.arange(64), codes[:64]] = 0.9
        learnt = replace(learnt, shares=shares)
    if "weights" in extra:
        learnt = replace(learnt, weights=even_weights([str(c) for c in codes[:64]]))
    more = {k: v for k, v in extra.items() if k not in ("shares", "weights")}
    recipe = Recipe(epochs=3, min_steps=24, batch_size=8, max_lr=3e-3, patch_px=32, **more)

    def fit(name: str, stop_at: int | None = None) -> list[Any]:
        class StopError(Exception):
            pass

        def on_epoch(epoch: Any) -> None:
            if epoch.epoch == stop_at:
                raise StopError

        try:
            return train(
                network(),
                Setup(patches, recipe, MACHINE),
                train_on=learnt,
                val=Part(ids[64:], codes[64:]),
                folder=RunFolder(str(tmp_path / name), "r"),
                seed=3,
                on_epoch=on_epoch,
            )
        except StopError:
            return []

    curve = fit("whole")
    assert max(e.val_auroc for e in curve) > 0.9
    fit("broken", stop_at=1)
    again = fit("broken")
    assert [(e.loss, e.val_loss) for e in again] == [(e.loss, e.val_loss) for e in curve]


def test_dora_trains_lengths_and_is_loaded_again(store: Store) -> None:
    pytest.importorskip("peft")
    recipe = replace(SMALL, adapt="dora", patch_px=160, epochs=1, min_steps=2, tta=True)
    options = replace(OPTIONS, backbone="test_vit", recipe=recipe)
    report = run(store, ManifestSpec("tiny"), options)
    assert report.n_new == 1
    (run_id,) = {r.run_id for r in report.rows}
    state = RunFolder(store.uri, run_id).model()
    assert any("magnitude" in k for k in state)
    table = predict(store, run_id, "tiny", PLAIN).to_pylist()
    scores = {r["annotation_id"]: r["score"] for r in table}
    recorded = query_of(store.uri, f"from predictions where run_id = '{run_id}' and role = 'test'")
    for row in recorded:
        assert scores[row["annotation_id"]] == pytest.approx(row["score"], abs=1e-5)


def test_soft_labels_are_the_votes_of_the_store(tmp_path: Path) -> None:
    tiny: TinyDataset = make_tiny(tmp_path / "data", per_label=8)
    options = replace(OPTIONS, recipe=replace(SMALL, soft_labels=True, weigh="label"))
    add(str(tmp_path / "s"), "plain", tiny.csv, AddOptions(slides=tiny.slides))
    store = Store.open(str(tmp_path / "s"), write=True)
    with pytest.raises(EmbedstoreError, match="no votes of several experts for --soft-labels"):
        run(store, ManifestSpec("plain"), options)
    voted = tmp_path / "voted.csv"
    other = {"mitotic figure": "hard negative", "hard negative": "mitotic figure"}
    labels = {r["label"] for r in tiny.rows}
    rows = [
        {
            **r,
            "expert1": r["label"],
            "expert2": r["label"],
            "expert3": other.get(r["label"], r["label"]),
        }
        for r in tiny.rows
    ]
    write_csv(voted, rows)
    words = ("embedstore", "add", "voted", "--annotations", voted, "--slides", tiny.slides)
    done = call_command(*words, "--column", "vote=expert*", "--store", store.uri)
    assert done.code == 0, (done.err, labels)
    report = run(store, ManifestSpec("voted"), options)
    assert report.n_new == 1
    manifest, _, _ = splits_for(store, ManifestSpec("voted"), OPTIONS.splits)
    assert manifest
    hard = run(store, ManifestSpec("voted"), replace(OPTIONS, recipe=SMALL))
    assert {r.run_id for r in hard.rows}.isdisjoint({r.run_id for r in report.rows})
    value = {r.metric: r.value for r in report.rows}
    assert value != {r.metric: r.value for r in hard.rows}


def test_options_reach_the_recipe_and_come_back_in_the_report(tmp_path: Path, store: Store) -> None:
    words = [
        "e2e",
        "run",
        "tiny",
        "--backbone",
        "test_resnet",
        "--weights",
        "random",
        "--fold",
        0,
        "--epochs",
        1,
        "--min-steps",
        2,
        "--batch-size",
        8,
        "--patch-px",
        32,
        "--focal",
        1.5,
        "--mixup",
        0.2,
        "--hed",
        0.05,
        "--weigh",
        "domain",
        "--tta",
        "--device",
        "cpu",
    ]
    done = call_command(*words, "--json", "--store", store.uri)
    assert done.code == 0, done.err
    params = json.loads(done.json()[0]["params"])
    assert {k: params[k] for k in ("focal", "mixup", "hed", "weigh", "tta")} == {
        "focal": 1.5,
        "mixup": 0.2,
        "hed": 0.05,
        "weigh": "domain",
        "tta": True,
    }
    assert "soft_labels" not in params
    call_command("probes", "report", "tiny", "--output", tmp_path / "r", "--store", store.uri)
    page = (tmp_path / "r" / "index.html").read_text()
    for word in (
        "--focal",
        "1.5",
        "--tta",
        "end to end, focal1.5, mixup0.2, hed0.05, weigh.domain, tta",
    ):
        assert word in page, word
    assert isinstance(TrainOptions().recipe, Recipe)
