"""What must never happen: code of others run, files outside read or written, pages taken over."""

import hashlib
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.asking import run_sql
from probes.reports import report
from probes.runs import RunOptions, run
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import call_command
from tests.making.slides import make_tiny, write_csv
from tests.making.stores import plant_cells, query_of
from tests.torture.scenes import Stage
from tests.torture.told import Tally


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"))


class Runs:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, file: Path, how: str) -> None:
        self.file, self.how = file, how

    def __reduce__(self) -> Any:
        if self.how == "system":
            import os

            return os.system, (f"touch '{self.file}'",)
        if self.how == "open":
            return open, (str(self.file), "w")
        return exec, (f"open({str(self.file)!r}, 'w').close()",)


def checkpoints(folder: Path, canary: Path) -> dict[str, Path]:
    """Files that are loaded as checkpoints by name and run code as pickles do."""
    made: dict[str, Path] = {}
    for how in ("system", "open", "exec"):
        evil = Runs(canary, how)
        for name, content in {
            "alone": evil,
            "in a state": {"patch_embed.proj.weight": evil},
            "beside tensors": {"a": torch.zeros(2), "model": evil},
        }.items():
            zipped = folder / f"{how}-{name.replace(' ', '-')}.pth"
            torch.save(content, zipped)
            made[f"torch zip, {how}, {name}"] = zipped
            old = folder / f"old-{zipped.name}"
            torch.save(content, old, _use_new_zipfile_serialization=False)
            made[f"torch before 1.6, {how}, {name}"] = old
            for protocol in (0, 2, 4):
                plain = folder / f"p{protocol}-{zipped.with_suffix('.bin').name}"
                plain.write_bytes(pickle.dumps(content, protocol))
                made[f"pickle {protocol}, {how}, {name}"] = plain
        tarred = folder / f"{how}.pt"
        with tarfile.open(tarred, "w") as tar:
            for member in ("storages", "tensors", "pickle"):
                data = pickle.dumps(evil, 2)
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        made[f"torch tar, {how}"] = tarred
        named = folder / f"{how}.safetensors"
        named.write_bytes(pickle.dumps(evil, 2))
        made[f"pickle named safetensors, {how}"] = named
    return made


def test_no_checkpoint_and_no_vectors_run_code(
    stage: Stage, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    row = tally("checkpoints and vectors that run code")
    canary = tmp_path / "ran"
    assert pickle.loads(pickle.dumps(Runs(canary, "exec"))) is None
    assert canary.exists()  # loaded as a pickle, it does run
    canary.unlink()
    from embedstore.models.checkpoints import find_weights
    from embedstore.models.loading import load_embedder, resolve

    name = "timm:test_vit"
    for says, path in checkpoints(tmp_path, canary).items():
        row.tried += 1
        with pytest.raises(EmbedstoreError):
            load_embedder(
                name,
                resolve(name),
                find_weights(name, str(path), ""),
                dtype="float32",
                device=torch.device("cpu"),
            )
        assert not canary.exists(), says
        row.survived += 1
    arrays = {"annotation_id": np.array([Runs(canary, "exec")]), "vector": np.zeros((1, 4), "f4")}
    np.savez(tmp_path / "v.npz", allow_pickle=True, **arrays)
    np.save(tmp_path / "v.npy", np.array([Runs(canary, "exec")] * 2), allow_pickle=True)
    store = ("--store", stage.states["added"])
    for words in (
        ("embedstore", "import", "d", tmp_path / "v.npz", "--model", "x", *store),
        ("embedstore", "add", "e", "--annotations", tmp_path / "v.npy", *store),
    ):
        row.tried += 1
        assert call_command(*words).code == 1
        assert not canary.exists()
        row.survived += 1


def outside_files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A folder of slides, one beside it that is not to be read, and a slide in each."""
    tiny = make_tiny(tmp_path / "given")
    secret = tmp_path / "secret"
    secret.mkdir()
    (tiny.slides / "b1.tiff").rename(secret / "hidden.tiff")
    return tiny.slides, secret, secret / "hidden.tiff"


def stated_outside(folder: Path, path: str) -> dict[str, Path]:
    """Annotation files of each format that states paths, each naming a slide at `path`."""
    folder.mkdir()
    rows = [
        {"slide": "x", "path": path, "x": 90 * k, "y": 90, "label": ("mitosis", "other")[k % 2]}
        for k in range(1, 5)
    ]
    made = {"csv": write_csv(folder / "cells.csv", rows)}
    made["csv without a slide"] = write_csv(
        folder / "paths.csv", [{k: v for k, v in r.items() if k != "slide"} for r in rows]
    )
    made["slide named so"] = write_csv(
        folder / "named.csv",
        [{**{k: v for k, v in r.items() if k != "path"}, "slide": path} for r in rows],
    )
    made["patches"] = write_csv(
        folder / "patches.csv",
        [{"path": path, "label": "mitosis"}, {"path": path, "label": "other"}],
    )
    coco = {
        "images": [{"id": 1, "file_name": path, "width": 900, "height": 700}],
        "annotations": [
            {
                "id": k,
                "image_id": 1,
                "category_id": 1 + k % 2,
                "bbox": [90 * k, 90, 140 + 90 * k, 140],
            }
            for k in range(1, 5)
        ],
        "categories": [
            {"id": 1, "name": "mitotic figure"},
            {"id": 2, "name": "non-mitotic figure"},
        ],
    }
    (folder / "midog.json").write_text(json.dumps(coco))
    made["midog"] = folder / "midog.json"
    return made


@pytest.mark.parametrize("way", ["relative", "absolute", "through the folder", "packed"])
def test_no_annotation_file_reads_beyond_the_folder_of_slides(
    tmp_path: Path, way: str, tally: Callable[[str], Tally]
) -> None:
    row = tally("annotation files that name paths outside")
    slides, _, hidden = outside_files(tmp_path)
    path = {
        "relative": "../../secret/hidden.tiff",
        "absolute": str(hidden),
        "through the folder": f"{slides}/../../secret/hidden.tiff",
        "packed": f"{hidden}::0",
    }[way]
    for says, file in stated_outside(tmp_path / "given/tables", path).items():
        row.tried += 1
        uri = str(tmp_path / f"s-{says}")
        try:
            add(uri, "d", file, AddOptions(slides=slides, mpp=0.25))
        except EmbedstoreError:
            pass  # refused, in words
        else:
            found = query_of(uri, "select path from slides where path is not null")
            assert not found, f"{says}: {found}"
        row.survived += 1
    # What the user names with --slides is read: their word goes before the file's.
    if way in ("relative", "absolute"):
        table = stated_outside(tmp_path / "given/again", path)["csv"]
        uri = str(tmp_path / "named")
        add(uri, "d", table, AddOptions(slides=tmp_path, mpp=0.25))
        assert query_of(uri, "select path from slides") == [{"path": str(hidden.resolve())}]


def test_archives_never_write_beside_the_store(
    stage: Stage, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    row = tally("archives whose members name paths outside")
    for n, member in enumerate(
        ("../out.npy", "/tmp/embedstore-out.npy", "a/../../out.npy", "vector")
    ):
        row.tried += 1
        path = tmp_path / "in" / f"{n}.npz"
        path.parent.mkdir(exist_ok=True)
        array = io.BytesIO()
        np.save(array, np.zeros((2, 3), "f4"))
        with zipfile.ZipFile(path, "w") as z:
            z.writestr(member, array.getvalue())
            z.writestr("annotation_id.npy", array.getvalue())
        done = call_command(
            "embedstore", "import", "d", path, "--model", "x", "--store", stage.states["added"]
        )
        assert done.code == 1
        assert not list(tmp_path.rglob("out.npy"))
        assert not Path("/tmp/embedstore-out.npy").exists()
        row.survived += 1


def digest(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "in-use.lock")
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_nothing_is_overwritten_unasked(
    stage: Stage, tmp_path: Path, tally: Callable[[str], Tally]
) -> None:
    row = tally("outputs onto what is there")
    store = ("--store", str(stage.states["run"]))
    (run_id,) = [r["id"] for r in query_of(store[1], "select min(run_id) as id from results")]
    (manifest,) = [r["id"] for r in query_of(store[1], "select min(manifest_id) as id from splits")]
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("m.npz", "m.parquet", "x.csv", "x.json", "x.parquet", "m.csv"):
        (kept / name).write_text("keep")
    (kept / "page").mkdir()
    (kept / "page/index.html").write_text("keep")
    (kept / "cells").mkdir()
    (kept / "cells/a0.tiff.geojson").write_text("keep")
    before = digest(kept)
    commands = [
        ("embedstore", "export", "d", "--model", "m", "--output", kept / "m.npz"),
        ("embedstore", "export", "d", "--model", "m", "--output", kept / "m.parquet"),
        *(
            ("embedstore", "sql", "select 1", "--output", kept / f"x.{e}")
            for e in ("csv", "json", "parquet")
        ),
        ("probes", "predict", run_id, "d", "--output", kept / "x.csv"),
        ("probes", "manifest", "export", manifest, kept / "m.csv"),
        ("probes", "doubtful", "d", "--output", kept / "x.csv"),
        ("probes", "doubtful", "d", "--output", kept / "cells"),
        ("probes", "report", "d", "--output", kept / "page"),
        ("probes", "paper", "d", "--output", kept / "page"),
        ("e2e", "predict", "none", "d", "--output", kept / "x.csv"),
    ]
    for words in commands:
        row.tried += 1
        done = call_command(*words, *store)
        assert done.code == 2, (words, done.err)
        assert "--overwrite" in done.err
        assert digest(kept) == before, words
        row.survived += 1
    for words in (commands[0], commands[2], commands[6], commands[9]):
        done = call_command(*words, "--overwrite", *store)
        assert done.code == 0, done.err
    assert digest(kept) != before
    again = ("probes", "report", "d", "--output", tmp_path / "mine", *store)
    assert [call_command(*again).code for _ in range(2)] == [0, 0]  # its own page it replaces


PAYLOADS = (
    "<script>console.error('PWNED')</script>",
    '"><img src=x onerror="console.error(\'PWNED\')">',
    "</script><script>console.error('PWNED')</script>",
    "'-console.error('PWNED')-'",
    "</style><svg onload=console.error('PWNED')>",
    "javascript:console.error('PWNED')",
    "<!--<script>",
    "]]><x>",
    "{{7*7}}{%raw%}",
    "&lt;script&gt;",
    "\u2028console.error('PWNED')\u2029",
    "=cmd|'/C calc'!A0",
    "@SUM(1+1)",
    "\\input{/etc/passwd}",
    "$(touch pwned)`id`",
    "| a | b |",
    "../../up",
    "%s%n{0}",
)


def test_no_name_takes_over_the_page_or_its_tables(
    tmp_path: Path, browser: Any, tally: Callable[[str], Tally]
) -> None:
    """Each payload as dataset, model, domain and label, in one page a few; seen in a browser."""
    row = tally("hostile names in a report, in a browser")
    for n in range(0, len(PAYLOADS), 3):
        names = PAYLOADS[n : n + 3]
        row.tried += len(names)
        models = tuple(f"{name} {k}" for k, name in enumerate(names[:2]))
        uri = str(tmp_path / f"s{n}")
        store = plant_cells(
            uri,
            f"d{names[0]}",
            models,
            domains=[f"{p} {k}" for k, p in enumerate(names)],
            other=names[-1],
        )
        run(store, ManifestSpec(f"d{names[0]}"), RunOptions(splits=Asked(fractions=(1.0,))))
        folder = tmp_path / f"page{n}"
        files = report(Store.open(uri), [], folder)
        dom, console = browser((folder / "index.html").as_uri(), "--dump-dom")
        assert not console, (names, console)
        assert "49" not in names[0] or "{{7*7}}" in dom
        assert not (tmp_path / "pwned").exists()
        for file in map(Path, [str(r["file"]) for r in files]):
            assert file.resolve().is_relative_to(folder.resolve())
            text = file.read_text(errors="replace")
            if file.suffix == ".html":
                assert "<script>console" not in text
                assert "<img src=x" not in text
            if file.suffix == ".svg":
                assert "<script" not in text
                assert "onerror" not in text.replace("&", "") or "<img" not in text
            if file.suffix == ".tex":
                assert "\\input{" not in text
        row.survived += len(names)


STATEMENTS = (
    "select getenv('HOME')",
    "select current_setting('nothing')",
    "call pragma_version(); drop table x",
    "select * from query('copy (select 1) to ''{file}''')",
    "select * from query_table('{file}')",
    "from sqlite_scan('{file}', 't')",
    "from postgres_scan('', '', '')",
    "from delta_scan('{folder}')",
    "from iceberg_scan('{folder}')",
    "from lance_scan('{folder}')",
    "from read_xlsx('{file}')",
    "from st_read('{file}')",
    "select load_aws_credentials()",
    "create secret (type s3, key_id 'a', secret 'b')",
    "from which_secret('s3://a', 's3')",
    "set temp_directory = '{folder}'",
    "set home_directory = '{folder}'",
    "set log_query_path = '{file}'",
    "pragma enable_profiling; select 1",
    "set profile_output = '{file}'",
    "call enable_logging()",
    "from 'https://localhost:1/x.csv'",
    "from read_csv('http://localhost:1/x')",
    "use memory",
    "begin; select 1; commit",
    "prepare p as select 1",
    "execute p",
    "select * from pragma_database_list where path is not null",
)


@pytest.mark.parametrize("files", [False, True])
def test_sql_changes_nothing_and_reads_nothing_else(
    stage: Stage, tmp_path: Path, files: bool, tally: Callable[[str], Tally]
) -> None:
    row = tally("SQL that would write, load or set")
    store = Store.open(str(stage.states["run"]))
    (tmp_path / "secret.csv").write_text("a\nsecret\n")
    before, of_store = digest(tmp_path), digest(stage.states["run"])
    for statement in STATEMENTS:
        row.tried += 1
        try:
            rows = run_sql(
                store, statement.format(file=tmp_path / "made.csv", folder=tmp_path), files=files
            ).to_pylist()
        except EmbedstoreError:
            pass  # refused, in words
        else:
            assert all(v in (None, "") for r in rows for v in r.values()), (statement, rows)
        assert digest(tmp_path) == before, statement
        assert digest(stage.states["run"]) == of_store, statement
        row.survived += 1
