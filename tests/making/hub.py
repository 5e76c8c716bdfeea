"""The hub's answers, served from memory."""

import hashlib
import re
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

COMMIT = "a" * 40


CONTENT = b"some weights"


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
            self._send(200, b"{}", {}, body)
        elif (name := re.sub("/resolve/[^/]+", "", self.path).strip("/")) in self.files:
            content = self.files[name]
            tag = hashlib.sha256(content).hexdigest()
            self._send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, body)
        elif owner == "ok" and self.path.endswith("/model/resolve/main/pytorch_model.bin"):
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
