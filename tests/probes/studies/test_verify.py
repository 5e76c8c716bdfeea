"""A certificate holds for what stands, and names what was tampered with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.sql import connect_to, fetch_rows
from probes.runs import RunOptions, run
from probes.splits.spec import Asked, ManifestSpec
from probes.studies.verify import verify
from tests.making.commands import call_command
from tests.making.stores import plant, plant_two, plant_views, query


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = plant_two(str(tmp_path / "s"), 300, 60)
    plant(made, "m", 120, 2.0)
    plant_views(made, "m", 120)
    return made


def wrong(store: Store, run_id: str) -> set[str]:
    return {c.check for c in verify(store, run_id) if not c.same}


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (ManifestSpec("d"), RunOptions()),
        (ManifestSpec("d", group_by="case"), RunOptions(methods=("logreg", "knn", "prototype"))),
        (ManifestSpec("d", scheme="cross-domain"), RunOptions(splits=Asked((0.5,), (1,)))),
        (ManifestSpec("d"), RunOptions(target="domain", splits=Asked((1.0,), (0,)))),
        (ManifestSpec("d"), RunOptions(views="d4", splits=Asked((1.0,), (0,)))),
        (
            ManifestSpec("d", group_by="slide"),
            RunOptions(correct="combat:slide", transductive=True),
        ),
    ],
)
def test_what_stands_is_the_same(store: Store, spec: ManifestSpec, options: RunOptions) -> None:
    rows = run(store, spec, options).rows
    for run_id in sorted({r.run_id for r in rows})[:3]:
        checks = verify(store, run_id)
        assert [c for c in checks if not c.same] == []
        assert {"manifest", "train", "test", "auroc"} <= {c.check.split(" in ")[0] for c in checks}


def test_what_was_tampered_with_is_named(store: Store) -> None:
    rows = run(store, ManifestSpec("d"), RunOptions(splits=Asked((1.0,), (0,)))).rows
    run_id = rows[0].run_id
    assert wrong(store, run_id) == set()
    recorded = fetch_rows(
        connect_to(store, "results"),
        f"select * from _results where run_id = '{run_id}' order by metric = 'auroc' desc",
    )
    store.merge("results", [recorded[0] | {"value": recorded[0]["value"] + 0.01}])
    assert wrong(store, run_id) == {"auroc", "auroc of stored predictions"}
    store.merge("results", [recorded[0] | {"weights_sha256": "f" * 64}])
    assert "rows of one run" in wrong(store, run_id)
    store.merge("results", [r | {"weights_sha256": "f" * 64} for r in recorded])
    assert {"weights", "run id"} <= wrong(store, run_id)
    store.merge("results", recorded)
    done = call_command("probes", "verify", run_id, "--store", store.uri)
    assert done.code == 0, done.err
    assert "all" in done.err
    # Other vectors under the same name.
    (vector,) = query(
        store,
        "select * from m where annotation_id in (select annotation_id from "
        "manifests where role = 'train' and fold = 0 order by 1 limit 1)",
    )
    table = store.lance(model_table("m")).to_table(
        filter=f"annotation_id = '{vector['annotation_id']}'"
    )
    values = np.array(table["vector"][0].as_py(), dtype=np.float32)
    row: dict[str, Any] = table.to_pylist()[0] | {"vector": (values + 30).tolist()}
    store.merge(model_table("m"), [row])
    assert "auroc" in wrong(store, run_id)
    done = call_command("probes", "verify", run_id, "--store", store.uri)
    assert done.code == 1
    assert "differ" in done.err
    rows = json.loads(call_command("probes", "verify", run_id, "--json", "--store", store.uri).out)
    assert {r["same"] for r in rows} == {True, False}


def test_changed_labels_are_said(store: Store) -> None:
    rows = run(store, ManifestSpec("d"), RunOptions(splits=Asked((1.0,), (0,)))).rows
    (row,) = fetch_rows(
        connect_to(store, "annotations", "predictions"),
        "select a.* from _annotations a where annotation_id in (select unnest(annotation_id) from "
        "_predictions where role = 'test') order by 1 limit 1",
    )
    other = "mitotic figure" if row["label"] != "mitotic figure" else "non-mitotic figure"
    store.merge("annotations", [row | {"label": other}])
    assert {"manifest", "test labels", "fitted again"} <= wrong(store, rows[0].run_id)


def test_a_run_on_an_imported_manifest_is_the_same(store: Store, tmp_path: Path) -> None:
    from probes.splits.files import import_manifest

    rows = query(store, "select annotation_id from annotations where dataset = 'd' order by 1")
    roles = ["train", "train", "train", "val", "test"]
    lines = [
        "annotation_id,role",
        *(f"{r['annotation_id']},{roles[n % 5]}" for n, r in enumerate(rows)),
    ]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    _, manifest = import_manifest(store, "d", tmp_path / "m.csv")
    found = run(store, ManifestSpec("d"), RunOptions(splits=Asked(manifest=manifest))).rows
    assert wrong(store, found[0].run_id) == set()


def test_an_unknown_run_is_an_error(store: Store) -> None:
    done = call_command("probes", "verify", "none", "--store", store.uri)
    assert done.code == 1
    assert "no run 'none'" in done.err
