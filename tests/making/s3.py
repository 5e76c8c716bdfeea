"""A server that speaks S3, and what can go wrong between it and a command."""

import http.client
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
BUCKET = "bkt"


def environment(url: str, cache: Path) -> dict[str, str]:
    """What a command needs to find the server, with a cache of its own."""
    return {**KEYS, "AWS_ENDPOINT_URL": url, "EMBEDSTORE_CACHE": str(cache)}


@contextmanager
def s3_server() -> Iterator[str]:
    """Give the address of a server with a bucket `bkt`."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT"))
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


Fault = tuple[int, str, str]
"""Status, code and message of S3's answer."""

EXPIRED: Fault = (400, "ExpiredToken", "The provided token has expired.")
DENIED: Fault = (403, "AccessDenied", "Access Denied")
NO_BUCKET: Fault = (404, "NoSuchBucket", "The specified bucket does not exist")


class Between:
    """A relay before a server: it answers with `fault` once `is_due` says so of (method, path)."""

    def __init__(self, url: str, is_due: Callable[[str, str], bool], fault: Fault) -> None:
        self.is_due, self.fault, self.n_faults = is_due, fault, 0
        self.host = url.removeprefix("http://")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if outer.is_due(self.command, self.path):
                    outer.n_faults += 1
                    status, code, message = outer.fault
                    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
                    self.answer(status, {"Content-Type": "application/xml"}, text.encode())
                    return
                there = http.client.HTTPConnection(outer.host, timeout=60)
                there.request(self.command, self.path, body, dict(self.headers))
                got = there.getresponse()
                self.answer(got.status, dict(got.getheaders()), got.read())
                there.close()

            def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                is_head = self.command == "HEAD"
                for name, value in headers.items():
                    if name.lower() in ("transfer-encoding", "connection", "date", "server"):
                        continue
                    if name.lower() != "content-length" or is_head:
                        self.send_header(name, value)
                if not is_head:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if not is_head:
                    self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = relay  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Between":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
