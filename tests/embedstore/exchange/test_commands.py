"""`export`, `import` and `neighbors` as commands: what is printed where, and a kill."""

import json
import signal
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from embedstore.add import AddOptions, add
from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.sql import connect, fetch_rows
from tests.making.commands import call_command
from tests.making.held import MERGE, Hold, start_held
from tests.making.slides import TinyDataset
from tests.making.stores import bare_store

VIT = "timm:test_vit"


@pytest.fixture
def uri(tiny: TinyDataset, tmp_path: Path) -> str:
    uri = str(tmp_path / "store")
    add(uri, "mine", tiny.csv, AddOptions(slides=tiny.slides))
    return uri


def test_out_and_in_again(embedded: str, uri: str, tmp_path: Path) -> None:
    """Into a store where the dataset has another name and the model gets one, too."""
    for form in ("parquet", "npz"):
        file = tmp_path / f"x.{form}"
        done = call_command(
            "embedstore",
            "export",
            "tiny",
            "--model",
            VIT,
            "--output",
            file,
            "--json",
            "--store",
            embedded,
        )
        (row,) = done.json()
        assert (row["exported"], row["not_embedded"], row["file"]) == (48, 0, str(file))
        assert done.err == ""
        done = call_command(
            "embedstore", "import", "mine", file, "--model", f"vit-{form}", "--json", "--store", uri
        )
        (row,) = done.json()
        assert (row["imported"], row["there_before"], row["not_in_file"]) == (48, 0, 0)
        assert row["weights"] == "random"
        assert done.err == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store", "x.npz", "x.parquet"]
    sql = (
        "select count(*) as n from embeddings a join embeddings b using (annotation_id) "
        "where a.model < b.model and a.vector = b.vector"
    )
    assert call_command("embedstore", "sql", sql, "--json", "--store", uri).json() == [{"n": 48}]
    shown = call_command("embedstore", "status", "--store", uri)
    assert "vit-npz" in shown.out
    ran = call_command("probes", "run", "mine", "--model", "vit-npz", "--store", uri)
    assert ran.code == 0
    assert "5 fits done" in ran.err


def test_messages_of_an_import_go_to_stderr(embedded: str, uri: str, tmp_path: Path) -> None:
    exported, given, bad_file = (tmp_path / name for name in ("x.parquet", "y.npz", "z.npz"))
    export = f"embedstore export tiny --model {VIT} --output {exported} --store {embedded}"
    call_command(*export.split())
    table = pq.read_table(exported).slice(0, 40)
    vectors = np.stack(table["vector"].to_pylist())
    np.savez(given, annotation_id=table["annotation_id"].to_pylist(), features=vectors)
    done = call_command(*f"embedstore import mine {given} --model own --json --store {uri}".split())
    (row,) = done.json()
    assert (row["weights"], row["imported"], row["not_in_file"]) == ("imported: y.npz", 40, 8)
    assert "the file holds float64, stored as float32" in done.err
    assert "8 annotations of mine are not in the file" in done.err
    refused = call_command("probes", "run", "mine", "--model", "own", "--store", uri)
    assert refused.code == 1
    assert "leave them out with --where" in refused.err
    where = done.err.split("--where '")[1].split("'\n")[0]
    probe = f"probes run mine --model own --fold 0 --json --store {uri} --where".split()
    ran = call_command(*probe, where)
    assert {r["n_train"] + r["n_val"] + r["n_test"] for r in ran.json()} == {40}
    bad = vectors.copy()
    bad[3, 0] = np.nan
    np.savez(bad_file, annotation_id=[f"tiny/{n}" for n in range(40)], vector=bad)
    done = call_command(*f"embedstore import mine {bad_file} --model z --store {uri}".split())
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    for said in (
        "40 of 40 ids",
        "looks like mine/a0.tiff/",
        "1 vectors hold NaN",
        "nothing is written",
    ):
        assert said in done.err
    again = call_command(
        "embedstore", "ingest", "mine", "--model", VIT, "--as", "own", "--store", uri
    )
    assert again.code == 1
    assert "were imported" in again.err


def test_h5_by_the_command(uri: str, tmp_path: Path) -> None:
    rows = call_command(
        "embedstore",
        "sql",
        "select * from annotations where slide = 'a0.tiff'",
        "--json",
        "--store",
        uri,
    ).json()
    corners = np.array([(r["x_l0"] - 112, r["y_l0"] - 112) for r in rows]).round().astype(int)
    with h5py.File(tmp_path / "a0.h5", "w") as f:
        f["features"] = np.eye(len(rows), dtype=np.float32)
        f["coords"] = corners + 3
    words = ("embedstore", "import", "mine", tmp_path / "a0.h5", "--model", "tiles", "--store", uri)
    done = call_command(*words)
    assert done.code == 1
    assert "--tile-px-l0 N" in done.err
    done = call_command(*words, "--tile-px-l0", 224)
    assert done.code == 1
    assert "--within PX" in done.err
    done = call_command(*words, "--tile-px-l0", 224, "--within", 5, "--json")
    assert done.json()[0]["imported"] == len(rows)
    assert "level-0 px away in the median" in done.err
    assert "3 slides have no file" in done.err
    helped = call_command("embedstore", "import", "--help", env={"COLUMNS": "200"})
    assert "not centred on the cell" in helped.out


def test_neighbors_by_the_command(embedded: str) -> None:
    sql = f'select annotation_id as id, vector from "{VIT}" order by 1'
    rows = call_command("embedstore", "sql", sql, "--json", "--store", embedded).json()
    x = np.array([r["vector"] for r in rows])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    distance = 1 - x @ x[0]
    expected = [rows[n]["id"] for n in np.argsort(distance)[1:6]]
    words = ("embedstore", "neighbors", rows[0]["id"], "--model", VIT, "--store", embedded)
    done = call_command(*words, "-k", 5, "--json")
    assert [r["annotation_id"] for r in done.json()] == expected
    np.testing.assert_allclose(
        [r["distance"] for r in done.json()], np.sort(distance)[1:6], atol=1e-5
    )
    assert f"5 of 47 embeddings of {VIT}, cosine distance" in done.err
    shown = call_command(*words, "--metric", "l2", "--where", "domain = 'b'")
    assert shown.code == 0
    assert "10 of 24 embeddings" in shown.err
    assert "mitotic figure" in shown.out
    assert "a0.tiff" not in shown.out.split("\n", 1)[1]


def test_a_killed_import_is_completed(tmp_path: Path) -> None:
    n, dim = 30_000, 64
    cells = [{"slide": f"{i % 9}.tiff", "source_id": str(i), "x_l0": i % 9000.0} for i in range(n)]
    uri = str(tmp_path / "store")
    store = bare_store(uri, "d", cells)
    vectors = np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32)
    ids = [f"d/{c['slide']}/{c['source_id']}" for c in cells]
    np.savez(tmp_path / "x.npz", annotation_id=ids, vector=vectors)
    words = ["embedstore", "import", "d", str(tmp_path / "x.npz"), "--model", "m", "--store", uri]
    hold = Hold(MERGE, n=2, where=model_table("m"))
    process = start_held([*words], hold, tmp_path / "mark")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    there = store.stats(model_table("m"))["n_rows"]
    assert 0 < there < n
    assert [r["model"] for r in fetch_rows(connect(store), "from models")] == ["m"]
    (row,) = call_command(*words, "--json").json()
    assert (row["imported"], row["there_before"]) == (n - there, there)
    found = Store.open(uri).lance(model_table("m")).to_table(columns=["annotation_id", "vector"])
    place = {i: k for k, i in enumerate(found["annotation_id"].to_pylist())}
    assert len(place) == len(found) == n
    stored = found["vector"].combine_chunks().flatten().to_numpy().reshape(n, dim)
    np.testing.assert_array_equal(stored[[place[i] for i in ids]], vectors)
    assert json.loads(call_command(*words, "--json").out)[0]["imported"] == 0
