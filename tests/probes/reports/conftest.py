"""A store whose names are hostile, and the report written of it: read them, do not write."""

from pathlib import Path

import pytest

from embedstore.store import Store
from probes.reports import report
from probes.runs import RunOptions, run
from probes.splits.spec import Asked, ManifestSpec
from tests.making.stores import DATASET, MODELS, plant_cells


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = plant_cells(str(tmp_path_factory.mktemp("evil") / "store"), DATASET, MODELS)
    run(
        made,
        ManifestSpec(DATASET),
        RunOptions(splits=Asked(fractions=(0.3, 1.0)), methods=("uni", "knn")),
    )
    run(made, ManifestSpec(DATASET, scheme="cross-domain"), RunOptions())
    run(made, ManifestSpec(DATASET, group_by="slide"), RunOptions())
    run(made, ManifestSpec(DATASET), RunOptions(target="domain"))
    return made


@pytest.fixture(scope="session")
def written(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    rows = report(store, [], tmp_path_factory.mktemp("report"))
    return {Path(r["file"]).name: Path(r["file"]) for r in rows}
