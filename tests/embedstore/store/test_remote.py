"""A store on S3, and a user without a name: what the environment lacks is completed or named."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.errors import EmbedstoreError
from embedstore.files.faults import in_words
from embedstore.files.objects import settle
from tests.making.commands import ROOT, run_command
from tests.making.s3 import KEYS, s3_server
from tests.making.slides import make_tiny


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a server that speaks S3, with a bucket `bkt`."""
    with s3_server() as url:
        yield url


def test_the_endpoint_alone_is_enough(s3: str, tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "tiny", per_label=2)
    env = {**KEYS, "AWS_ENDPOINT_URL": s3}
    given = ("--annotations", tiny.csv, "--slides", tiny.slides, "--store", "s3://bkt/store")
    done = run_command("embedstore", "add", "d", *given, env=env)
    assert done.code == 0, done.err
    sql = ("sql", "select count(*) as n from annotations", "--json", "--store", "s3://bkt/store")
    assert run_command("embedstore", *sql, env=env).json() == [{"n": 16}]
    of_s3 = {**KEYS, "AWS_ENDPOINT_URL_S3": s3, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    assert run_command("embedstore", *sql, env=of_s3).json() == [{"n": 16}]
    gone = run_command("embedstore", "status", "--store", "s3://none/store", env=env)
    assert gone.code == 1
    assert "s3://none/store cannot be opened: The specified bucket does not exist" in gone.err


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("nonsense", "AWS_ENDPOINT_URL is 'nonsense', which is no address; give http://HOST:PORT"),
        ("127.0.0.1:9000", "which is no address"),
        ("http://127.0.0.1:99999", "which is no address"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1: Connection refused"),
    ],
)
def test_an_endpoint_that_serves_nothing_is_named(endpoint: str, said: str) -> None:
    env = {**KEYS, "AWS_ENDPOINT_URL": endpoint}
    done = run_command("embedstore", "status", "--store", "s3://bkt/store", env=env)
    assert done.code == 1
    assert said in done.err
    for noise in ("Traceback", "panicked", "RetryError", ".rs", "location:"):
        assert noise not in done.err


def test_what_is_there_wins_and_other_stores_are_left_alone() -> None:
    env = {"AWS_ENDPOINT": "http://h:9", "AWS_ALLOW_HTTP": "false", "AWS_REGION": "eu-west-3"}
    settle("s3://b/s", env)
    assert env == {
        "AWS_ENDPOINT_URL": "http://h:9",
        "AWS_ALLOW_HTTP": "false",
        "AWS_REGION": "eu-west-3",
    }
    for uri in ("store", "gs://b/s"):
        untouched = {"AWS_ENDPOINT_URL": "nonsense"}
        settle(uri, untouched)
        assert untouched == {"AWS_ENDPOINT_URL": "nonsense"}


@given(st.text(min_size=1))
def test_any_endpoint_is_settled_or_refused(text: str) -> None:
    env = {"AWS_ENDPOINT_URL": text}
    with contextlib.suppress(EmbedstoreError):
        settle("s3://b/s", env)
        assert not text.strip() or env["AWS_ENDPOINT_URL"].startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "LanceError(IO): no such file, /build/lance/src/a.rs:428:21",
            "no such file",
        ),
        ('Not found: x.lance, location: Location { file: "/build/a.rs" }', "Not found: x.lance"),
        ("two\nlines", "two"),
        ("", "ValueError"),
        ("x" * 900, "x" * 300 + " ..."),
    ],
)
def test_messages_of_lance_are_cut_to_their_sense(text: str, said: str) -> None:
    assert in_words(ValueError(text)) == said


NOBODY = """
import pwd
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
"""


@pytest.mark.parametrize("home", [None, "/proc/nowhere"])
def test_a_user_without_name_and_home_can_embed(tmp_path: Path, home: str | None) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(NOBODY)
    tiny = make_tiny(tmp_path / "tiny", per_label=2, domains=("a",))
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1"}
    env |= {} if home is None else {"HOME": home}
    model, store = "timm:test_vit", ("--store", str(tmp_path / "s"))
    given = ("--annotations", str(tiny.csv), "--slides", str(tiny.slides))
    for words in (
        ("add", "d", *given, *store),
        ("ingest", "d", "--model", model, "--weights", f"{model}=random", *store),
    ):
        command = [sys.executable, "-m", "embedstore", *words]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
