"""On a cluster as in one process: complete, exactly once, equal; a node lost, an error, Ctrl-C."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2e.recipe import Recipe
from e2e.run import Listener, TrainOptions
from e2e.run import run as train
from e2e.spread import run_on_cluster as train_on_cluster
from embedstore.add import AddOptions, add
from embedstore.cluster import Cluster, named, spread
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.ingest import IngestOptions, Interrupted, ingest
from embedstore.store import Store
from probes.runs import RunOptions, run, run_on_cluster
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import call_command, run_command
from tests.making.nodes import Nodes, nodes
from tests.making.slides import TinyDataset, make_tiny
from tests.making.stores import put_embeddings, query

OPTIONS = IngestOptions(weights={"timm:test_vit": "random"}, name="m", batch_size=4)
VECTORS = "select annotation_id, vector from embeddings order by 1"


@pytest.fixture(scope="module")
def two() -> Iterator[Nodes]:
    with nodes(2) as made:
        yield made


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return make_tiny(tmp_path_factory.mktemp("cells"), per_label=10, domains=("a", "b", "c"))


def added(folder: Path, cells: TinyDataset) -> Store:
    add(str(folder), "d", cells.csv, AddOptions(slides=cells.slides))
    return Store.open(str(folder), write=True)


def test_pieces_are_done_once_each_and_errors_come_back(two: Nodes) -> None:
    class Doubling:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def do(self, piece: int, tell: Callable[[int], None]) -> int:
            if piece == 13:
                raise UsageError("13 is not allowed")
            tell(1)
            return self.factor * piece

    back: dict[int, int] = {}
    spread(Doubling, (2,), range(12), Cluster(two.address), on_done=back.__setitem__)
    assert back == {n: 2 * n for n in range(12)}
    with pytest.raises(UsageError, match="13 is not allowed"):
        spread(Doubling, (2,), [1, 13], Cluster(two.address))
    with pytest.raises(EmbedstoreError, match="no node of the cluster has 1 GPUs"):
        spread(Doubling, (2,), [1], Cluster(two.address, num_gpus=1))
    spread(Doubling, (2,), [], Cluster("nowhere:1"))  # nothing to do asks nobody
    assert [named(p) for p in ("a", ("a",), ("a", "b", "c"), (0.5, 1, None))] == [
        "a",
        "a",
        "a and 2 more",
        "0.5 and 1 more",
    ]


def test_a_piece_that_takes_every_worker_with_it_is_named(two: Nodes) -> None:
    class Deadly:
        def do(self, piece: str, tell: Callable[[int], None]) -> None:
            import os

            os._exit(1)

    notes: list[str] = []
    with pytest.raises(EmbedstoreError, match="the workers that had x were lost 4 times"):
        spread(Deadly, (), ["x"], Cluster(two.address), on_note=notes.append)
    assert len(notes) == 4


def test_with_a_node_lost_midway_all_is_there_once_and_equal(
    cells: TinyDataset, tmp_path: Path
) -> None:
    here, there = added(tmp_path / "here", cells), added(tmp_path / "there", cells)
    ingest(here, "d", ["timm:test_vit"], OPTIONS)
    with nodes(2) as made:
        cluster = Cluster(made.address)

        def lose() -> None:
            while not there.models():
                time.sleep(0.1)
            made.lose()

        losing = threading.Thread(target=lose)
        losing.start()
        told: list[tuple[int, int]] = []
        report = ingest(
            there,
            "d",
            ["timm:test_vit"],
            replace(OPTIONS, cluster=cluster),
            lambda done, total, waited: told.append((done, total)),
        )
        losing.join()
        assert query(there, VECTORS) == query(here, VECTORS)
        assert query(there, "select count(*) as n from patches") == [{"n": 120}]
        (of_model,) = report.models
        assert (of_model.n_before, of_model.n_embedded, of_model.n_left) == (0, 120, 0)
        assert told[-1] == (120, 120)
        again = ingest(there, "d", ["timm:test_vit"], replace(OPTIONS, cluster=cluster))
        assert again.models[0].n_embedded == 0


def test_ctrl_c_stores_what_the_workers_had(two: Nodes, cells: TinyDataset, tmp_path: Path) -> None:
    store = added(tmp_path / "s", cells)

    def interrupt(done: int, total: int, waited: Any) -> None:
        if done:
            raise KeyboardInterrupt

    options = replace(OPTIONS, cluster=Cluster(two.address), batch_size=2)
    with pytest.raises(Interrupted) as e:
        ingest(store, "d", ["timm:test_vit"], options, interrupt)
    n = query(store, "select count(*) as n from embeddings")[0]["n"]
    assert 0 < e.value.report.models[0].n_embedded == n < 120
    report = ingest(store, "d", ["timm:test_vit"], options)
    assert report.models[0].n_embedded == 120 - n


def test_a_slide_that_cannot_be_read_is_set_aside(
    two: Nodes, cells: TinyDataset, tmp_path: Path
) -> None:
    store = added(tmp_path / "s", cells)
    (path,) = query(store, "select path from slides where slide = 'a0.tiff'")
    file = Path(path["path"])
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[: len(whole) // 3])
        report = ingest(
            store, "d", ["timm:test_vit"], replace(OPTIONS, cluster=Cluster(two.address))
        )
    finally:
        file.write_bytes(whole)
    assert list(report.set_aside) == ["a0.tiff"]
    assert report.models[0].n_embedded == 100


def test_two_engines_at_once_on_one_store(two: Nodes, cells: TinyDataset, tmp_path: Path) -> None:
    store, here = added(tmp_path / "s", cells), added(tmp_path / "here", cells)
    ingest(here, "d", ["timm:test_vit"], OPTIONS)
    model = ("--model", "timm:test_vit", "--as", "m", "--weights", "timm:test_vit=random")
    command = ("embedstore", "ingest", "d", *model, "--batch-size", "4", "--store", store.uri)
    with ThreadPoolExecutor(1) as pool:
        local = pool.submit(run_command, *command)
        options = replace(OPTIONS, cluster=Cluster(two.address))
        ingest(store, "d", ["timm:test_vit"], options)
        assert local.result().code == 0, local.result().err
    assert query(store, VECTORS) == query(here, VECTORS)


def test_probes_and_training_are_recorded_as_by_one_process(
    two: Nodes, cells: TinyDataset, tmp_path: Path
) -> None:
    here, there = added(tmp_path / "here", cells), added(tmp_path / "there", cells)
    ids = [r["annotation_id"] for r in query(here, "select annotation_id from annotations")]
    for n in range(3):
        vectors = np.random.default_rng(n).normal(size=(len(ids), 8)).astype(np.float32)
        for store in (here, there):
            put_embeddings(store, f"m{n}", ids, vectors)
    spec, options, cluster = ManifestSpec("d"), RunOptions(), Cluster(two.address)
    told: list[tuple[int, int]] = []
    alone = run(here, spec, options)
    report = run_on_cluster(there, spec, options, cluster, lambda *n: told.append(n))
    assert (report.n_new, report.n_recorded, told[-1]) == (15, 0, (15, 15))
    assert (alone.n_new, alone.manifest_id) == (15, report.manifest_id)
    columns = "run_id, metric, eval_domain, value, ci_low, ci_high"
    compared = f"select {columns} from results order by all"
    assert query(there, compared) == query(here, compared)
    assert run_on_cluster(there, spec, options, cluster).n_new == 0

    trained = TrainOptions(
        backbone="timm:test_resnet",
        weights="random",
        recipe=Recipe(patch_px=64, epochs=1, min_steps=2),
        splits=Asked(folds=[0, 1]),
    )
    lines: list[str] = []
    assert train(here, spec, trained).n_new == 2
    assert train_on_cluster(there, spec, trained, cluster, Listener(line=lines.append)).n_new == 2
    assert query(there, compared) == query(here, compared)
    assert [line.split(":")[1] for line in lines] == [" trained (1 of 2)", " trained (2 of 2)"]


def test_commands_take_an_engine(two: Nodes, cells: TinyDataset, tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "s"))
    added(tmp_path / "s", cells)
    words = (
        "embedstore",
        "ingest",
        "d",
        "--model",
        "timm:test_vit",
        "--weights",
        "timm:test_vit=random",
    )
    ray = ("--engine", "ray", "--ray-address", two.address)
    done = call_command(*words, *ray, "--json", *store)
    assert [r["embedded"] for r in done.json()] == [120]
    assert len(call_command("probes", "run", "d", *ray, "--json", *store).json()) > 0
    for wrong, said in (
        (("--ray-address", two.address), "is for --engine ray"),
        ((*ray, "--limit", "3", "--as", "n"), "--limit is for one process"),
        (
            ("--engine", "ray", "--ray-address", "127.0.0.1:1", "--as", "n"),
            "no Ray cluster answers at 127.0.0.1:1",
        ),
        (("--shard", "0/3"), "shards are counted from 1"),
        (("--shard", "three"), "is not of the form N/OF"),
    ):
        refused = call_command(*words, *wrong, *store)
        assert refused.code in (1, 2)
        assert said in refused.err, refused.err
