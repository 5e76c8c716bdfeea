"""What `ingest` refuses before anything is made."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.ingest import IngestOptions, ingest
from embedstore.models.checkpoints import find_weights
from embedstore.models.embedder import choose_device
from embedstore.models.loading import load_embedder, resolve
from embedstore.reading.status import status
from embedstore.store import Store
from tests.making.ingests import RANDOM, RESNET, VIT
from tests.making.slides import TinyDataset
from tests.making.stores import query


@pytest.mark.parametrize(
    "change",
    [
        {"patch_px": 128},
        {"mpp_out": (0.5,)},
        {"dtype": "bfloat16"},
        {"weights": {RESNET: "FILE"}},
    ],
)
def test_a_name_stands_for_one_thing(store: Store, tmp_path: Path, change: Any) -> None:
    ingest(store, "tiny", [RESNET], RANDOM)
    if "weights" in change:
        network = load_embedder(
            "else",
            resolve(RESNET),
            find_weights(RESNET, "random", ""),
            dtype="float32",
            device=choose_device("cpu"),
        ).network
        state = {k: v.contiguous() for k, v in network.state_dict().items()}
        save_file(state, tmp_path / "w.safetensors")
        change = {"weights": {RESNET: str(tmp_path / "w.safetensors")}}
    options = IngestOptions(**{**vars(RANDOM), **change})
    with pytest.raises(EmbedstoreError, match="--as NAME"):
        ingest(store, "tiny", [RESNET], options)
    other = ingest(store, "tiny", [RESNET], IngestOptions(**{**vars(options), "name": "other"}))
    assert other.models[0].n_embedded == 48
    assert len(query(store, "select * from models")) == 2


@pytest.mark.parametrize(
    ("models", "options", "said"),
    [
        (["univ"], {}, "unknown model 'univ'"),
        ([RESNET], {"weights": {VIT: "random"}}, "but no --model of that name is given"),
        ([RESNET, VIT], {"name": "x"}, "exactly one --model"),
        ([RESNET], {"name": "results"}, "--as NAME"),
        ([RESNET], {"patch_px": 1}, "between 16 and 2048"),
        ([RESNET], {"mpp_out": (25.0,)}, "um/px"),
        ([RESNET], {"weights": {RESNET: "/nowhere.pth"}}, "no weights"),
        (
            ["timm:nothing_like_it"],
            {"weights": {"timm:nothing_like_it": "random"}},
            "no architecture",
        ),
    ],
)
def test_wrong_input_makes_nothing(store: Store, models: Any, options: Any, said: str) -> None:
    with pytest.raises(EmbedstoreError, match=said):
        ingest(store, "tiny", models, IngestOptions(**options))
    assert store.models() == []
    assert query(store, "select * from models") == []


def test_weights_may_name_a_timm_model_without_its_prefix(store: Store) -> None:
    options = IngestOptions(weights={"test_resnet": "random"}, limit=2)
    assert ingest(store, "tiny", [RESNET], options).models[0].weights == "random"


def test_unknown_and_slideless_datasets(store: Store, tiny: TinyDataset) -> None:
    with pytest.raises(EmbedstoreError, match="no dataset 'x'.*there: tiny"):
        ingest(store, "x", [RESNET], RANDOM)
    add(store.uri, "later", tiny.csv, AddOptions())
    report = ingest(store, "later", [RESNET], RANDOM)
    assert (report.models[0].n_embedded, report.models[0].n_left) == (0, 48)
    add(store.uri, "later", tiny.csv, AddOptions(slides=tiny.slides))
    assert ingest(store, "later", [RESNET], RANDOM).models[0].n_embedded == 48


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patch_px": 100}, "--patch-px"),
        ({"device": "meta"}, "--device"),
    ],
)
def test_a_first_ingest_that_fails_binds_nothing(store: Store, options: Any, said: str) -> None:
    name = "timm:vit_tiny_patch16_224"
    weights = {name: "random"}
    with pytest.raises(EmbedstoreError, match=said):
        ingest(store, "tiny", [name], IngestOptions(weights=weights, **options))
    assert store.models() == []
    assert query(store, "select * from models") == []
    assert (
        ingest(store, "tiny", [name], IngestOptions(weights=weights, limit=2)).models[0].n_embedded
        == 2
    )


def test_names_that_sql_does_not_tell_apart_are_refused(store: Store) -> None:
    ingest(store, "tiny", [RESNET], IngestOptions(weights={RESNET: "random"}, name="foo", limit=3))
    for name, said in (
        ("FOO", "there is a model 'foo'"),
        ("Slides", "--as NAME"),
        ("EMBEDDINGS", "--as"),
    ):
        with pytest.raises(EmbedstoreError, match=said):
            ingest(store, "tiny", [VIT], IngestOptions(weights={VIT: "random"}, name=name))
    assert store.models() == ["foo"]
    assert status(store)[0]["done"] == 3
