"""Every command with its store, slides, annotations and outputs on S3: as on a disk, or in words."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedstore.files.objects import upload, uris_below
from tests.making.commands import BIN, Ran, call_command, outside, run_command
from tests.making.s3 import DENIED, EXPIRED, NO_BUCKET, Between, Fault, environment, s3_server
from tests.making.slides import make_tiny

MODEL = ("--model", "timm:test_vit", "--weights", "timm:test_vit=random", "--as", "m")
DATA = "s3://bkt/data"


@dataclass(frozen=True)
class Cloud:
    """A server's address, the environment to find it, and what is uploaded there, locally."""

    url: str
    env: dict[str, str]
    local: Path

    def fresh(self, name: str) -> tuple[str, ...]:
        return ("--store", f"s3://bkt/{name}")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    make_tiny(folder / "tiny", per_label=12)
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        env = environment(url, folder / "cache")
        for name, value in env.items():
            patch.setenv(name, value)
        for file in (folder / "tiny").rglob("*"):
            if file.is_file():
                upload(file, f"{DATA}/{file.relative_to(folder / 'tiny').as_posix()}")
        yield Cloud(url, env, folder / "tiny")


def ok(done: Ran) -> Ran:
    assert done.code == 0, done.err
    return done


ADD = ("embedstore", "add", "d", "--annotations", f"{DATA}/tiny.csv", "--slides", f"{DATA}/slides")


def rows(query: str, store: tuple[str, ...]) -> list[dict[str, object]]:
    return call_command("embedstore", "sql", query, "--json", *store).json()


def test_every_command_does_on_s3_what_it_does_on_a_disk(cloud: Cloud, tmp_path: Path) -> None:
    there, here, out = cloud.fresh("every"), ("--store", str(tmp_path / "store")), "s3://bkt/out"
    local = ("--annotations", cloud.local / "tiny.csv", "--slides", cloud.local / "slides")
    both = [
        *(("embedstore", "ingest", "d", *MODEL, *views) for views in ((), ("--views", "d4"))),
        ("probes", "run", "d"),
    ]
    for store, add in ((here, (*ADD[:3], *local)), (there, ADD)):
        for words in (add, *both):
            ok(call_command(*words, *store))
    one = "select any_value({}) as id from {} where scheme = 'monte-carlo'"
    (run,), (manifest,) = (
        rows(one.format(*of), there) for of in (("run_id", "results"), ("manifest_id", "splits"))
    )
    (cell,) = rows("select min(annotation_id) as id from annotations", there)
    more = [
        ("embedstore", "export", "d", "--model", "m", "--output", f"{out}/m.parquet"),
        ("embedstore", "import", "d", "--model", "n", f"{out}/m.parquet"),
        ("embedstore", "status", "d"),
        ("embedstore", "neighbors", cell["id"], "--model", "m"),
        ("embedstore", "sql", "select 1 as one", "--output", f"{out}/one.csv"),
        ("probes", "split", "d", "--scheme", "cross-domain"),
        ("probes", "run", "d", "--model", "n"),
        ("probes", "compare", "d", "--a", "uni:m", "--b", "uni:n"),
        ("probes", "verify", run["id"]),
        ("probes", "predict", run["id"], "d", "--output", f"{out}/p.csv"),
        ("probes", "manifest", "export", manifest["id"], f"{out}/s.csv"),
        ("probes", "manifest", "import", "d", f"{out}/s.csv"),
        ("probes", "gap", "d", "--model", "m"),
        ("probes", "shots", "d", "--model", "m"),
        ("probes", "fusion", "d"),
        ("probes", "likeness", "d"),
        ("probes", "robustness", "d", "--by", "domain"),
        ("probes", "doubtful", "d", "--output", f"{out}/doubtful.csv"),
        ("probes", "rescore", "d"),
        ("probes", "copies", "d"),
        ("probes", "report", "d", "--output", f"{out}/page"),
        ("embedstore", "remove", "d", "--model", "n", "--yes"),
    ]
    for words in more:
        ok(call_command(*words, *there))
    for query in (
        "select * exclude (path) from slides order by slide",
        "select * from annotations order by annotation_id",
        "select annotation_id, vector from embeddings order by annotation_id",
        "select view_id, vector from embedding_views order by view_id",
        "select metric, fold, eval_domain, value from results where model = 'm' and method = 'uni' and scheme = 'monte-carlo' and group_by = 'annotation' and fraction = 1 order by all",
    ):
        assert rows(query, there) == rows(query, here), query
    made = {u.removeprefix(f"{out}/") for u in uris_below(out)}
    assert {"m.parquet", "one.csv", "p.csv", "s.csv", "doubtful.csv", "page/index.html"} <= made
    assert not any(name.endswith(".part") for name in made)
    assert rows("select path from slides where slide = 'a0.tiff'", there) == [
        {"path": f"{DATA}/slides/a0.tiff"}
    ]


def test_a_network_is_trained_and_scores_with_its_folder_on_s3(cloud: Cloud) -> None:
    store = cloud.fresh("trained")
    ok(call_command(*ADD, *store))
    train = (
        "e2e",
        "run",
        "d",
        "--backbone",
        "timm:test_resnet",
        "--weights",
        "random",
        "--epochs",
        "1",
        "--min-steps",
        "2",
        "--fold",
        "0",
        "--patch-px",
        "64",
        *store,
    )
    ok(call_command(*train))
    assert "0 runs trained" in ok(call_command(*train)).err
    (run,) = rows("select distinct run_id from results", store)
    ok(call_command("e2e", "predict", run["run_id"], "d", *store))
    below = f"s3://bkt/trained/runs/{run['run_id']}"
    assert {u.removeprefix(f"{below}/") for u in uris_below(below)} == {
        "config.json",
        "curve.csv",
        "model.safetensors",
    }
    ok(call_command("embedstore", "remove", "d", "--yes", *store))
    assert not uris_below("s3://bkt/trained/runs")


def test_three_adds_at_once_make_one_whole_store(cloud: Cloud) -> None:
    for n in range(2):
        store = cloud.fresh(f"race{n}")
        with ThreadPoolExecutor(3) as pool:
            for done in pool.map(lambda store: run_command(*ADD, *store), [store] * 3):
                ok(done)
        assert rows(
            "select count(*) as n, count(distinct annotation_id) as d from annotations", store
        ) == [{"n": 96, "d": 96}]


def test_killed_and_beside_each_other_every_key_is_there_once(cloud: Cloud) -> None:
    store = cloud.fresh("killed")
    ok(call_command(*ADD, *store))
    ingest = ["embedstore", "ingest", "d", *MODEL, "--batch-size", "4", *store]
    process = subprocess.Popen(
        [str(BIN / ingest[0]), *ingest[1:]],
        env=outside(),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    time.sleep(5)  # somewhere in its work, wherever that is
    process.send_signal(signal.SIGKILL)
    process.wait()
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda _: run_command(*ingest), range(2)):
            ok(done)
    counts = "select count(*) as n, count(distinct annotation_id) as d from "
    for table in ("embeddings", "patches"):
        assert rows(counts + table, store) == [{"n": 96, "d": 96}]


STAGES: dict[str, Callable[[str, str], bool]] = {
    "slides": lambda method, path: method == "GET" and "data/slides/" in path,
    "vectors": lambda method, path: method == "PUT" and "embeddings.m" in path,
    "splits": lambda method, path: method == "GET" and "splits.lance" in path,
    "results": lambda method, path: method == "PUT" and "results.lance" in path,
}


@pytest.mark.parametrize(
    ("stage", "fault", "said"),
    [
        (
            "slides",
            EXPIRED,
            "slides/{slide} cannot be reached: ExpiredToken (The provided token has expired.)",
        ),
        ("slides", DENIED, "slides/{slide} cannot be reached: access denied"),
        ("vectors", EXPIRED, "could not be made (The provided token has expired.); check its"),
        ("splits", DENIED, "(Access Denied); check its rights and credentials, then run again"),
        ("results", NO_BUCKET, "what was there is unchanged (The specified bucket does not exist)"),
    ],
)
def test_what_breaks_midway_is_said_and_the_same_command_goes_on(
    cloud: Cloud, tmp_path: Path, stage: str, fault: Fault, said: str
) -> None:
    store = cloud.fresh(f"fault-{stage}-{fault[1]}")
    ok(call_command(*ADD, *store))
    env = {**cloud.env, "EMBEDSTORE_CACHE": str(tmp_path / "cache")}
    command: tuple[str, ...] = ("embedstore", "ingest", "d", *MODEL, "--no-patch-cache", *store)
    if stage in ("splits", "results"):
        ok(call_command(*command))
        command = ("probes", "run", "d", *store)
    with Between(cloud.url, STAGES[stage], fault) as between:
        done = run_command(*command, env={**env, "AWS_ENDPOINT_URL": between.url})
        assert between.n_faults
    assert done.code == 1
    assert any(said.format(slide=f"{s}.tiff") in done.err for s in ("a0", "a1", "b0", "b1")), (
        done.err
    )
    for noise in ("Traceback", "panicked", ".rs", "location:"):
        assert noise not in done.err
    assert not rows("select * from slides where status != 'ok'", store)
    ok(run_command(*command, env=env))
    table, n = ("embeddings", 96) if stage in ("slides", "vectors") else ("splits", 5)
    assert rows(f"select count(*) as n from {table}", store) == [{"n": n}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--annotations", "s3://bkt/none.csv"), "there is nothing at s3://bkt/none.csv"),
        (
            ("--annotations", "ftp://h/x.csv"),
            "'ftp://h/x.csv' is no place known here; allowed: a local path, s3://BUCKET/...",
        ),
        (("--annotations", "s3://"), "'s3://' is no place known here"),
        (
            ("--annotations", f"{DATA}/tiny.csv", "--slides", "s3://bkt/none"),
            "no folder of slides at s3://bkt/none",
        ),
        (("--annotations", f"{DATA}/tiny.csv", "--format", "midog"), f"{DATA}/tiny.csv"),
        (("--annotations", "az://c/x.csv"), "set AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_a_place_that_is_none_is_named(cloud: Cloud, words: tuple[str, ...], said: str) -> None:
    done = call_command("embedstore", "add", "d", *words, *cloud.fresh("none"))
    assert done.code == 1
    assert said in done.err
    assert not uris_below("s3://bkt/none")


def test_patches_of_a_folder_there_are_read_where_they_are(cloud: Cloud, tmp_path: Path) -> None:
    rng, store = np.random.default_rng(0), cloud.fresh("patches")
    for name in ("mitotic figure/1.png", "mitotic figure/2.png", "non-mitotic figure/1.png"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(file)
        upload(file, f"s3://bkt/folder/{name}")
    ok(call_command("embedstore", "add", "p", "--annotations", "s3://bkt/folder", *store))
    ok(call_command("embedstore", "ingest", "p", *MODEL, *store))
    found = rows(
        "select path, annotations.status, label from slides join annotations using (slide) order by 1",
        store,
    )
    assert [r["path"] for r in found] == uris_below("s3://bkt/folder")
    local = ("--store", str(tmp_path / "store"))
    ok(call_command("embedstore", "add", "p", "--annotations", tmp_path, *local))
    ok(call_command("embedstore", "ingest", "p", *MODEL, *local))
    vectors = "select annotation_id, vector from embeddings order by 1"
    assert rows(vectors, store) == rows(vectors, local)
