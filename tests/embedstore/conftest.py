"""A store with the tiny dataset for each test; a small demo for each file."""

from pathlib import Path

import pytest

from embedstore.add import AddOptions, add
from embedstore.demo.dataset import DemoDataset, write_demo
from embedstore.store import Store
from tests.making.demos import SMALL
from tests.making.slides import TinyDataset


@pytest.fixture
def store(tiny: TinyDataset, tmp_path: Path) -> Store:
    uri = str(tmp_path / "s")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    return Store.open(uri)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DemoDataset:
    """Return a small demo, written once for this module and only read by its tests."""
    return write_demo(tmp_path_factory.mktemp("demo") / "small", **SMALL)
