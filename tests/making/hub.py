"""The hub's answers, served from memory."""

import hashlib
import json
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

from tests.making.commands import ROOT

COMMIT = "a" * 40


CONTENT = b"some weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
INFO = {
    "id": "ok/model",
    "sha": COMMIT,
    "siblings": [
        {
            "rfilename": "pytorch_model.bin",
            "size": len(CONTENT),
            "lfs": {"sha256": SHA256, "size": len(CONTENT), "pointerSize": 100},
        }
    ],
}
"""What the hub says of a repository."""


class Hub(BaseHTTPRequestHandler):
    """Serves ok/model and what lies in `files`, gates gated/model, breaks on broken/model."""

    files: ClassVar[dict[str, bytes]] = {}

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
            self._send(200, json.dumps(INFO).encode(), {}, body)
        elif (name := re.sub("/resolve/[^/]+", "", self.path).strip("/")) in self.files:
            content = self.files[name]
            tag = hashlib.sha256(content).hexdigest()
            self._send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, body)
        elif re.fullmatch(f"/ok/model/resolve/(main|{COMMIT})/pytorch_model.bin", self.path):
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


def ask(code: str, hub: str, home: Path, offline: bool = False) -> Any:
    """Run code in a process of its own, since the client reads its settings at import."""
    env = {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
    }
    whole = (
        "import json\nfrom embedstore.models.checkpoints import *\nfrom embedstore.errors import *\n"
        f"PINS['pinned'] = Pin('{COMMIT}', 'pytorch_model.bin', '{SHA256}')\n"
        f"PINS['other'] = Pin('{COMMIT}', 'pytorch_model.bin', '{'0' * 64}')\n"
        f"PINS['older'] = Pin('{'b' * 40}', 'pytorch_model.bin', '{SHA256}')\n"
        f"try:\n    said = {code}\nexcept EmbedstoreError as e:\n    said = {{'error': str(e)}}\n"
        "print(json.dumps(said, default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", whole],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
