"""A store whose annotations have no embeddings yet."""

from pathlib import Path

import pytest

from embedstore.store import Store
from tests.making.exchanges import CELLS
from tests.making.stores import bare_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return bare_store(str(tmp_path / "store"), "d", CELLS)
