"""A store whose names are hostile, and the report written of it: read them, do not write."""

from pathlib import Path
from typing import Any

import pytest

from embedstore.store import Store
from probes.report import report
from probes.run import RunOptions, run
from probes.splits.spec import Asked, ManifestSpec
from tests.making.stores import DATASET, MODELS, plant_cells


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = plant_cells(str(tmp_path_factory.mktemp("evil") / "store"), DATASET, MODELS)
    quick: dict[str, Any] = {"n_resamples": 40}
    run(
        made,
        ManifestSpec(DATASET),
        RunOptions(splits=Asked(fractions=(0.3, 1.0)), methods=("uni", "knn"), **quick),
    )
    run(made, ManifestSpec(DATASET, scheme="cross-domain"), RunOptions(**quick))
    run(made, ManifestSpec(DATASET, group_by="slide"), RunOptions(**quick))
    run(made, ManifestSpec(DATASET), RunOptions(target="domain", **quick))
    return made


@pytest.fixture(scope="session")
def written(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    rows = report(store, [], tmp_path_factory.mktemp("report"))
    return {Path(r["file"]).name: Path(r["file"]) for r in rows}
