"""The boundary to object stores: what lies at s3://, gs:// or az://, and files written there whole.

Credentials come from where each one's own tools look for them, and from nowhere else.
"""

import functools
import os
import re
import shutil
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from embedstore.errors import EmbedstoreError
from embedstore.files.folders import is_system

SCHEMES = ("s3", "gs", "az")
"""What the URI of an object store begins with."""

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Variables that name where S3 is served from, in the order of their weight."""

ACCOUNT = "AZURE_STORAGE_ACCOUNT_NAME"
"""The variable that names the account of az://CONTAINER/..."""

_MAX_LENGTH = 300
_AWS = r"AWS Error ([A-Z_]+)(?: \(HTTP status (\d+)\))?(?: during \w+ operation)?:(.*)"

Place = str | Path
"""Where a file or folder is: a local path, or a URI as text."""


def is_uri(place: Place) -> bool:
    """Return whether a place is on an object store."""
    return "://" in str(place)


def place(text: str) -> Place:
    """Return what a user names as a place: a local path, or a URI without a slash at its end.

    EmbedstoreError for a URI that is of no object store known here.
    """
    if not is_uri(text):
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES or not parts.netloc:
        allowed = ", ".join(f"{s}://BUCKET/..." for s in SCHEMES)
        raise EmbedstoreError(f"'{text}' is no place known here; allowed: a local path, {allowed}")
    return text.rstrip("/")


def join(folder: Place, name: str) -> Place:
    """Return the place of a name in a folder."""
    return f"{str(folder).rstrip('/')}/{name}" if is_uri(folder) else Path(folder) / name


def everywhere(place: str, *, must_be_there: bool = False) -> str:
    """Return a place as a process in another folder finds it; with must_be_there, if it is one."""
    if is_uri(place) or (must_be_there and not Path(place).exists()):
        return place
    return str(Path(place).resolve())


def partial_name(path: str) -> str:
    """Return what a file is called until it is whole: of two who write it each has its own."""
    return f"{path}.{os.urandom(4).hex()}.part"


def name_of(place: Place) -> str:
    """Return the last part of a place."""
    return str(place).rstrip("/").rsplit("/", 1)[-1]


def settle(uri: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Complete what the environment says of an s3:// store, so that an endpoint alone will do.

    As in AWS's own tools, http in the endpoint's address allows http, and one for S3 alone wins.
    EmbedstoreError where the endpoint is no address, which Lance would not survive.
    """
    if not uri.startswith("s3://"):
        return
    named = next((k for k in ENDPOINTS if environment.get(k, "").strip()), None)
    if named is None:
        return
    endpoint = environment[named].strip()
    if not _is_address(endpoint):
        raise EmbedstoreError(
            f"{named} is '{endpoint}', which is no address; give http://HOST:PORT or https://HOST"
        )
    environment["AWS_ENDPOINT_URL"] = endpoint
    environment.pop("AWS_ENDPOINT", None)
    if endpoint.lower().startswith("http://"):
        environment.setdefault("AWS_ALLOW_HTTP", "true")
    if not environment.get("AWS_REGION") and not environment.get("AWS_DEFAULT_REGION"):
        environment["AWS_REGION"] = "us-east-1"


def _is_address(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        _ = parts.port  # a ValueError where it is no number or too large
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in endpoint


@functools.cache
def _arrow() -> Any:
    """Return Arrow's file systems; brought in late, since who reads local slides needs none."""
    from pyarrow import fs

    return fs


def filesystem(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI, and the path there; EmbedstoreError where there is none."""
    settle(uri)
    parts = urlsplit(uri)
    path = f"{parts.netloc}{parts.path}".rstrip("/")
    with answering(uri):
        if parts.scheme == "s3" and (endpoint := os.environ.get("AWS_ENDPOINT_URL")):
            scheme, host = endpoint.split("://", 1)
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
            return _arrow().S3FileSystem(
                endpoint_override=host.rstrip("/"), scheme=scheme, region=region
            ), path
        if parts.scheme == "az":
            if not (account := os.environ.get(ACCOUNT)):
                raise EmbedstoreError(f"{uri}: set {ACCOUNT} to the storage account's name")
            key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY")
            return _arrow().AzureFileSystem(account, account_key=key), path
        made: tuple[Any, str] = _arrow().FileSystem.from_uri(uri)
        return made


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn what an object store's library raises into an EmbedstoreError that says it.

    FileNotFoundError passes: what is not there is the caller's to tell.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError, NotImplementedError) as e:
        raise EmbedstoreError(
            f"{uri} cannot be reached: {said(e)}; check its name, rights and credentials, "
            "then run again"
        ) from e


def said(error: Exception) -> str:
    """Return what an error of Arrow says, without the request it was made by."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
    aws = re.search(
        r"AWS Error ([A-Z_]+)(?: \(HTTP status (\d+)\))?(?: during \w+ operation)?:(.*)", text
    )
    if aws is None:
        return text[:_MAX_LENGTH]
    code, status, message = aws[1].replace("_", " ").lower(), aws[2], aws[3]
    message = message.replace("No response body.", "").strip()
    if (stated := re.search(r"ExceptionName: (\w+) Message: (.*)", message)) is not None:
        code, message = stated[1], stated[2]
    elif code == "unknown" and status:
        code = f"status {status}"
        message = message or "credentials may have expired" * (status in ("400", "401", "403"))
    return f"{code}{f' ({message})' if message else ''}"[:_MAX_LENGTH]


def size_of(uri: str) -> tuple[int, str] | None:
    """Return the length of an object in bytes and what its state is known by, None if not there."""
    files, path = filesystem(uri)
    with answering(uri):
        info = files.get_file_info(path)
    if info.type != _arrow().FileType.File:
        return None
    return int(info.size), f"{info.size} {info.mtime_ns}"


def is_folder(uri: str) -> bool:
    """Return whether anything lies below a URI."""
    files, path = filesystem(uri)
    with answering(uri):
        return bool(files.get_file_info(path).type == _arrow().FileType.Directory)


def uris_below(uri: str) -> list[str]:
    """Return the URIs of all files below one, sorted; what systems leave is passed over."""
    files, path = filesystem(uri)
    with answering(uri):
        infos = files.get_file_info(
            _arrow().FileSelector(path, recursive=True, allow_not_found=True)
        )
    found = []
    for info in infos:
        below = info.path[len(path) :].strip("/")
        if info.type == _arrow().FileType.File and not any(map(is_system, below.split("/"))):
            found.append(f"{uri.rstrip('/')}/{below}")
    return sorted(found)


def download(uri: str, target: Path) -> None:
    """Copy an object to a local file; FileNotFoundError where it is not there."""
    files, path = filesystem(uri)
    with answering(uri), files.open_input_stream(path) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 8 * 2**20)


def upload(source: Path, uri: str) -> None:
    """Copy a local file to an object, which has its name only once it is whole."""
    files, path = filesystem(uri)
    with answering(uri):
        # Arrow closes, and so completes, what is broken off: the name comes after.
        partial = partial_name(path)
        with source.open("rb") as data, files.open_output_stream(partial) as sink:
            shutil.copyfileobj(data, sink, 8 * 2**20)
        files.move(partial, path)


def remove_folder(uri: str) -> None:
    """Delete all that lies below a URI, if anything does."""
    files, path = filesystem(uri)
    with answering(uri):
        if files.get_file_info(path).type == _arrow().FileType.Directory:
            files.delete_dir(path)
