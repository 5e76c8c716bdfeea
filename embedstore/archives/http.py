"""The boundary to HTTP: JSON asked of an archive, and files that go on where they broke off."""

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedstore.archives.remote import GIT, MD5, RemoteFile
from embedstore.errors import EmbedstoreError

PART = ".part"
"""The ending of a file that is not whole yet."""
CHUNK = 2**18
TIMEOUT = 60
_ATTEMPTS = 5
_AGAIN = {408, 429, 500, 502, 503, 504}
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_LFS = b"version https://git-lfs"
AGENT = {"User-Agent": "mitosis-embedstore"}

wait = time.sleep
"""Between attempts; tests need not."""


def ask(url: str) -> Any:
    """Return the JSON at an address; EmbedstoreError where it does not answer with any."""

    def read() -> Any:
        with urllib.request.urlopen(_request(url), timeout=TIMEOUT) as answer:
            return json.loads(answer.read())

    try:
        return _tried(url, read)
    except ValueError as e:
        raise EmbedstoreError(f"{url} answers with no JSON; the archive may have changed") from e


def download(
    file: RemoteFile, target: Path, on_bytes: Callable[[int], None] = lambda n: None
) -> None:
    """Have a file at target, whole and as its checksum says; what is there of it is gone on with.

    on_bytes is told how many bytes came, fewer than none where they have to come again.
    EmbedstoreError where the archive does not give it, or gives another one twice.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART)
    for attempt in (1, 2):
        _tried(file.url, lambda: _continue(file, part, on_bytes))
        fault = problem(part, file)
        if fault is None:
            part.replace(target)
            return
        on_bytes(-part.stat().st_size)
        part.unlink()
        if attempt == 2:
            raise EmbedstoreError(
                f"{file.url} came twice and is not what the archive says ({fault}); nothing of it "
                "is kept"
            )


def problem(path: Path, file: RemoteFile) -> str | None:
    """Return in what a local file differs from what the archive says of it, None in nothing."""
    size = path.stat().st_size
    if size != file.size:
        return f"{size:,} bytes instead of {file.size:,}"
    if file.kind is None:
        return None
    digest = hashlib.md5(usedforsecurity=False) if file.kind == MD5 else hashlib.sha1()
    if file.kind == GIT:
        digest.update(f"blob {size}\0".encode())
    with path.open("rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    if digest.hexdigest() != file.checksum:
        return f"checksum {digest.hexdigest()} instead of {file.checksum}"
    with path.open("rb") as stream:
        if file.kind == GIT and stream.read(len(_LFS)) == _LFS:
            return "a pointer of Git LFS in place of the file"
    return None


def _continue(file: RemoteFile, part: Path, on_bytes: Callable[[int], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= file.size and part.exists():
        return
    request = _request(file.url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        goes_on = have and answer.status == 206
        if have and not goes_on:
            on_bytes(-have)
        with part.open("ab" if goes_on else "wb") as sink:
            while chunk := answer.read(CHUNK):
                sink.write(chunk)
                on_bytes(len(chunk))
            sink.flush()
            os.fsync(sink.fileno())
    if part.stat().st_size < file.size:
        raise ConnectionError("it broke off")


def _request(url: str) -> urllib.request.Request:
    if not url.startswith(("http://", "https://")):
        raise EmbedstoreError(f"'{url}' is no address that is fetched from here")
    return urllib.request.Request(url, headers=AGENT)


def _tried(url: str, work: Callable[[], Any]) -> Any:
    """Do a piece of work again while the archive is busy or the line breaks."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return work()
        except urllib.error.HTTPError as e:
            if e.code not in _AGAIN or attempt == _ATTEMPTS:
                raise EmbedstoreError(f"{url} answers {e.code} {e.reason}") from e
        except _BROKEN as e:
            if attempt == _ATTEMPTS:
                raise EmbedstoreError(
                    f"{url} cannot be reached ({getattr(e, 'reason', None) or e}); the same "
                    "command goes on where it stopped"
                ) from e
        wait(2.0**attempt)
    raise AssertionError("unreachable")
