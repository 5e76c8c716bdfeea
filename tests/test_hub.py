"""Weights from the hub: the real client against a server on this machine that speaks its protocol."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_command

COMMIT = "a" * 40
CONTENT = b"some weights"


class Hub(BaseHTTPRequestHandler):
    """Serves ok/model, gates gated/model, breaks on broken/model, knows nothing else."""

    def do_GET(self) -> None:
        self._answer(body=self.command == "GET")

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, *, body: bool) -> None:
        owner = self.path.removeprefix("/api/models/").strip("/").split("/")[0]
        if owner == "gated":
            self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}, body)
        elif owner == "broken":
            self._send(500, b"", {}, body)
        elif owner != "ok":
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        elif self.path.startswith("/api/"):
            self._send(200, b"{}", {}, body)
        elif self.path.endswith("/pytorch_model.bin"):
            self._send(200, CONTENT, {"ETag": '"e1"', "X-Repo-Commit": COMMIT}, body)
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)

    def _send(self, code: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(code: str, hub: str, home: Path, offline: bool = False) -> dict:
    """Run code in a process of its own, since the client reads its settings at import."""
    env = {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline)),
           "HF_HUB_DISABLE_XET": "1", "PATH": "/usr/bin:/bin", "HOME": str(home)}  # fmt: skip
    whole = (
        "import json\nfrom embedstore.checkpoints import *\nfrom embedstore.errors import *\n"
        f"try:\n    said = {code}\nexcept EmbedstoreError as e:\n    said = {{'error': str(e)}}\n"
        "print(json.dumps(said, default=str))"
    )
    done = subprocess.run([sys.executable, "-c", whole], env=env, cwd=ROOT, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_file_is_fetched_once_named_by_its_commit_and_found_offline(hub, tmp_path):
    code = "vars(find_weights('m', 'hub', 'ok/model'))"
    first = ask(code, hub, tmp_path)
    assert first["label"] == f"ok/model@{COMMIT}"
    assert Path(first["path"]).read_bytes() == CONTENT
    assert ask(code, hub, tmp_path, offline=True) == first
    assert ask("availability('hub', 'ok/model')", hub, tmp_path, offline=True).startswith("here")


@pytest.mark.parametrize(("repository", "said"), [
    ("gated/model", "gated: accept its terms"),
    ("none/model", "the hub knows no none/model"),
])  # fmt: skip
def test_what_the_hub_refuses_says_the_way_out(hub, tmp_path, repository, said):
    found = ask(f"vars(find_weights('m', 'hub', '{repository}'))", hub, tmp_path)
    assert said in found["error"]
    assert "--weights m=PATH" in found["error"]


def test_offline_without_a_copy(hub, tmp_path):
    found = ask("vars(find_weights('m', 'hub', 'ok/model'))", hub, tmp_path, offline=True)
    assert "no copy is cached" in found["error"]


@pytest.mark.parametrize(("repository", "said"), [
    ("ok/model", "hub"), ("gated/model", "no: gated"), ("none/model", "no: the hub shows"),
    ("broken/model", "no: the hub cannot be reached"),
])  # fmt: skip
def test_availability_asks_without_fetching(hub, tmp_path, repository, said):
    assert ask(f"availability('hub', '{repository}')", hub, tmp_path).startswith(said)
    assert not list(tmp_path.rglob("*.bin"))


def test_models_check_offline():
    rows = {r["model"]: r for r in run_command("embedstore", "models", "check", "--json").json()}
    assert rows["efficientnet-lite0"]["weights"].startswith("here (package")
    assert rows["uni"]["weights"].startswith(("no: not cached", "here (in"))
    assert "--weights MODEL=PATH" in run_command("embedstore", "models", "check").err
