"""Shards: every slide in one of them, as even as slides are, and processes that know of no other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.add import AddOptions, add
from embedstore.errors import UsageError
from embedstore.ingest import IngestOptions, Shard, ingest
from embedstore.ingest.plan import plan
from embedstore.store import Store
from tests.making.commands import run_command
from tests.making.slides import TinyDataset, make_tiny
from tests.making.stores import query


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 1000)), st.integers(1, 9))
def test_every_slide_is_in_one_shard_and_none_is_far_from_the_others(
    sizes: dict[str, int], count: int
) -> None:
    shards = [Shard(n, count).of(sizes) for n in range(1, count + 1)]
    assert sorted(s for shard in shards for s in shard) == sorted(sizes)
    loads = [sum(sizes[s] for s in shard) for shard in shards]
    assert max(loads) - min(loads) <= max(sizes.values(), default=0)
    turned = dict(reversed(sizes.items()))
    assert [Shard(n, count).of(turned) for n in range(1, count + 1)] == shards


@pytest.mark.parametrize("text", ["", "3", "3/", "/3", "0/3", "4/3", "1/0", "-1/3", "a/b", "1/2/3"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        Shard.parse(text)
    assert str(Shard.parse(" 3/16 ")) == "3/16"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return make_tiny(tmp_path_factory.mktemp("cells"), per_label=5, domains=("a", "b", "c"))


def test_processes_of_an_array_embed_all_once(cells: TinyDataset, tmp_path: Path) -> None:
    whole, store = str(tmp_path / "whole"), str(tmp_path / "s")
    for uri in (whole, store):
        add(uri, "d", cells.csv, AddOptions(slides=cells.slides))
    model = ("--model", "timm:test_vit", "--weights", "timm:test_vit=random", "--store", store)
    with ThreadPoolExecutor(3) as pool:
        jobs = pool.map(
            lambda n: run_command("embedstore", "ingest", "d", "--shard", f"{n}/3", *model),
            (1, 2, 3),
        )
        for n, done in enumerate(jobs, 1):
            assert done.code == 0, done.err
            assert f"shard {n}/3: 2 slides with 20 annotations to embed" in done.err
    weights = {"timm:test_vit": "random"}
    ingest(Store.open(whole, write=True), "d", ["timm:test_vit"], IngestOptions(weights=weights))
    sql = "select annotation_id, vector from embeddings order by 1"
    assert query(Store.open(store), sql) == query(Store.open(whole), sql)
    again = run_command("embedstore", "ingest", "d", "--shard", "2/3", *model)
    assert "nothing to embed" in again.err


def test_a_shard_decides_by_the_sample_of_all(cells: TinyDataset, tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    add(uri, "d", cells.csv, AddOptions(slides=cells.slides))
    store = Store.open(uri, write=True)
    sampled = [
        [(j.slide, [p.annotation_id for p in j.points]) for j in of.sample(7)]
        for of in (plan(store, "d", ["m"], shard=s) for s in (None, Shard(1, 2), Shard(2, 2)))
    ]
    assert sampled[0] == sampled[1] == sampled[2]
    assert sum(len(ids) for _, ids in sampled[0]) == 7
