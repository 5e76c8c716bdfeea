"""A store with planted signals, one for each file of these tests."""

import pytest

from embedstore.store import Store
from tests.making.stores import plant, plant_two, plant_views


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two datasets; two models and views."""
    store = plant_two(str(tmp_path_factory.mktemp("planted") / "s"), 600, 200)
    plant(store, "strong", 240, 2.5)
    plant(store, "weak", 160, 1.5)
    plant_views(store, "strong", 240)
    return store
