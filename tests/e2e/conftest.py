"""A store of its own for each file of these tests."""

import pytest

from embedstore.add import AddOptions, add
from embedstore.ingest import IngestOptions, ingest
from embedstore.store import Store
from tests.making.slides import TinyDataset, make_tiny
from tests.making.training import RESNET


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyDataset, Store]:
    """A dataset of its own with one model's embeddings; tests add runs to it."""
    folder = tmp_path_factory.mktemp("e2e")
    tiny = make_tiny(folder / "data", per_label=8)
    uri = str(folder / "store")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    store = Store.open(uri)
    ingest(store, "tiny", [RESNET], IngestOptions(weights={RESNET: "random"}))
    return tiny, store


@pytest.fixture
def store(place: tuple[TinyDataset, Store]) -> Store:
    return place[1]
