"""Shared fixtures: generated slides and datasets, the real data beside the checkout, the commands."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

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


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run a headless browser with some options on an address; return stdout and console lines."""
    found = next((b for b in map(shutil.which, BROWSERS) if b), None)
    if found is None:
        pytest.skip("no Chromium here; `make browser` installs Debian's")
    profile = tmp_path_factory.mktemp("profile")

    def go(address: str, *options: str) -> tuple[str, list[str]]:
        done = subprocess.run(
            [
                found,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--allow-file-access-from-files",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                "--virtual-time-budget=4000",
                "--enable-logging=stderr",
                "--v=0",
                *options,
                address,
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout, [x for x in done.stderr.splitlines() if "CONSOLE" in x]

    return go
