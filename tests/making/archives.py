"""Archives on this machine: a server that answers as Zenodo, figshare and GitHub do, with faults."""

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def git_sha(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Archives:
    """What the server has: by archive and identifier, files by path; and how it misbehaves.

    breaks_after: bytes of a file after which the line breaks, that many times; busy: 503s before an
    answer; wrong: paths that come with a bit turned; no_ranges: as a server that knows none;
    pause: seconds between 64 kB.
    """

    url: str = ""
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    breaks_after: int | None = None
    n_breaks: int = 0
    busy: int = 0
    wrong: set[str] = field(default_factory=set)
    no_ranges: bool = False
    pause: float = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def env(self) -> dict[str, str]:
        """Variables that make the archives these."""
        return {
            "EMBEDSTORE_ZENODO": self.url,
            "EMBEDSTORE_FIGSHARE": self.url,
            "EMBEDSTORE_GITHUB": self.url,
            "EMBEDSTORE_GITHUB_RAW": f"{self.url}/raw",
        }

    def sent(self, path: str) -> list[str | None]:
        """The ranges asked of a file, None for all of it."""
        return [r for p, r in self.asked if p.endswith(path)]

    def answer(self, path: str, query: dict[str, list[str]]) -> Any:
        """The JSON at an address, None where there is none."""
        if found := re.fullmatch(r"/api/records/(\d+)", path):
            return self._zenodo(found[1])
        if found := re.fullmatch(r"/v2/collections/(\d+)", path):
            return self._figshare(found[1])
        if found := re.fullmatch(r"/v2/collections/(\d+)/articles", path):
            return self._page([{"id": int(found[1] + str(k))} for k in (0, 1)], query)
        if found := re.fullmatch(r"/v2/articles/(\d+)\d", path):
            there = ("figshare", found[1]) in self.files
            return {"license": {"name": "CC0"}} if there else None
        if found := re.fullmatch(r"/v2/articles/(\d+)(\d)/files", path):
            return self._page(self._figshare_files(found[1], int(found[2])), query)
        if found := re.fullmatch(r"/repos/([^/]+/[^/]+)(/.*)?", path):
            return self._github(found[1], found[2] or "")
        return None

    def content(self, path: str) -> bytes | None:
        """The file at an address."""
        if found := re.fullmatch(r"/get/([^/]+)/(.+?)//(.+)", path):
            return self.files.get((found[1], found[2]), {}).get(found[3])
        if found := re.fullmatch(r"/raw/([^/]+/[^/]+)/c0ffee/(.+)", path):
            return self.files.get(("github", found[1]), {}).get(found[2])
        return None

    def _zenodo(self, record: str) -> Any:
        if ("zenodo", record) not in self.files:
            return None
        files = [
            {
                "key": p,
                "size": len(c),
                "checksum": f"md5:{md5(c)}",
                "links": {"self": f"{self.url}/get/zenodo/{record}//{p}"},
            }
            for p, c in self.files["zenodo", record].items()
        ]
        about = {
            "title": "A record",
            "license": {"id": "cc-by-4.0"},
            "creators": [{"name": "Doe, J."}],
        }
        return {"metadata": about, "doi": "10.5281/zenodo.1", "files": files}

    def _figshare(self, number: str) -> Any:
        there = ("figshare", number) in self.files
        return {"title": "A collection", "citation": "Doe 2023"} if there else None

    def _figshare_files(self, number: str, article: int) -> list[Any]:
        mine = list(self.files["figshare", number].items())[article::2]
        return [
            {
                "name": p,
                "size": len(c),
                "computed_md5": md5(c),
                "download_url": f"{self.url}/get/figshare/{number}//{p}",
            }
            for p, c in mine
        ]

    def _page(self, rows: list[Any], query: dict[str, list[str]]) -> list[Any]:
        page, size = int(query["page"][0]), int(query["page_size"][0])
        return rows[(page - 1) * size : page * size]

    def _github(self, repository: str, rest: str) -> Any:
        if ("github", repository) not in self.files:
            return None
        if not rest:
            return {
                "default_branch": "main",
                "license": {"spdx_id": "MIT"},
                "description": "A repository",
            }
        if rest == "/commits/main":
            return {"sha": "c0ffee"}
        tree = [
            {"path": p, "type": "blob", "size": len(c), "sha": git_sha(c)}
            for p, c in self.files["github", repository].items()
        ]
        return {"truncated": False, "tree": [*tree, {"path": "databases", "type": "tree"}]}


@contextlib.contextmanager
def archives() -> Iterator[Archives]:
    """A server of archives while in use."""
    held = Archives()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path, query = unquote(parts.path), parse_qs(parts.query)
            held.asked.append((path, self.headers.get("Range")))
            if held.busy:
                held.busy -= 1
                self.send_error(503)
                return
            if (content := held.content(path)) is not None:
                self._file(path, content)
                return
            told = held.answer(path, query)
            if told is None:
                self.send_error(404)
                return
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _file(self, path: str, content: bytes) -> None:
            if any(path.endswith(w) for w in held.wrong):
                content = bytes([content[0] ^ 1]) + content[1:]
            start = 0
            asked = self.headers.get("Range")
            if asked and not held.no_ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            rest = content[start:]
            if (
                held.breaks_after is not None
                and held.n_breaks > 0
                and len(rest) > held.breaks_after
            ):
                held.n_breaks -= 1
                self.wfile.write(rest[: held.breaks_after])
                self.wfile.flush()
                self.close_connection = True
                return
            for k in range(0, len(rest), 65_536):
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(rest[k : k + 65_536])
                    self.wfile.flush()
                time.sleep(held.pause)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    held.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
