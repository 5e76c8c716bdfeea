"""Shared fixtures: generated slides and datasets, the real data beside the checkout, the commands."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.making.commands import SHARED
from tests.making.slides import TinyDataset, make_tiny

os.environ["HF_HUB_OFFLINE"] = "1"
# The networks of most tests are tiny, and threads would mostly wait for each other. What processes
# that tests start take: see `tests.making.commands.outside`.
os.environ["OMP_NUM_THREADS"] = "1"

# Tests say what is right, not how fast a busy machine is.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes: one worker has it, the others take over the rest."""
    slow = {"real", "vits14_file"}  # all real frames through a real network
    items.sort(key=lambda item: not slow <= set(getattr(item, "fixturenames", ())))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real slides and annotations."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real slides are not beside this checkout (../shared/data)")
    return SHARED / "data"


@pytest.fixture(scope="session")
def vits14_file() -> Path:
    """A real checkpoint: DINOv2 ViT-S/14, fp16 safetensors."""
    file = SHARED / "weights" / "vit_small_patch14_dinov2.safetensors"
    if not file.is_file():
        pytest.skip("the real checkpoint is not beside this checkout (../shared/weights)")
    return file


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    """Two domains, four slides, 48 annotations."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny: TinyDataset) -> str:
    """A store with the tiny dataset and two models of different widths. Read it, do not write."""
    from embedstore.add import AddOptions, add
    from embedstore.ingest import IngestOptions, ingest
    from embedstore.store import Store

    uri = str(tmp_path_factory.mktemp("embedded") / "store")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    models = ["timm:test_resnet", "timm:test_vit"]
    ingest(Store.open(uri), "tiny", models, IngestOptions(weights=dict.fromkeys(models, "random")))
    return uri
