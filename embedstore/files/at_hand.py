"""Files of object stores at hand: fetched once into a bounded cache on the local disk.

OpenSlide reads local files alone. An entry of the cache is a folder with a slide and what belongs
to it; whoever reads it holds a shared lock, so that no other process makes room at its cost. The
longest unused goes first.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows): entries are never given up there
    fcntl = None  # type: ignore[assignment]

from embedstore.errors import EmbedstoreError
from embedstore.files.objects import (
    Place,
    download,
    is_uri,
    name_of,
    size_of,
    upload,
    uris_below,
)

FOLDER, LIMIT = "EMBEDSTORE_CACHE", "EMBEDSTORE_CACHE_GB"
"""Variables that say where the cache is, and how large it may be."""

SHARE = 0.5
"""What part of the free space of its disk the cache may take where LIMIT says nothing."""

_A_DAY = 86_400
_WITH_FOLDER = (".mrxs",)
_WITH_SIBLINGS = (".vms", ".vmu", ".dcm")


def cache_folder() -> Path:
    """Return where fetched files are kept."""
    if named := os.environ.get(FOLDER):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embedstore"


def is_there(place: Place) -> bool:
    """Return whether there is a file at a place."""
    return size_of(str(place)) is not None if is_uri(place) else Path(place).is_file()


@contextmanager
def at_hand(place: Place) -> Iterator[Path]:
    """Give a local file of the same name and content, kept while it is in use.

    A local one is itself. FileNotFoundError where there is none, EmbedstoreError where the object
    store does not answer or the cache cannot hold it.
    """
    if not is_uri(place):
        yield Path(place)
        return
    uri = str(place)
    if (seen := size_of(uri)) is None:
        raise FileNotFoundError(f"no file at {uri}")
    size, state = seen
    key = hashlib.sha256(f"{uri}|{state}".encode()).hexdigest()[:24]
    entry = cache_folder() / key
    with _locked(entry) as lock:
        if not entry.is_dir():
            _fetch(uri, size, entry)
        _share(lock)
        os.utime(entry)
        yield entry / name_of(uri)


def brought(place: Place, stack: ExitStack) -> Path:
    """Return a local copy of a file or of all files below a place, kept until `stack` is closed.

    A local one is itself. EmbedstoreError where nothing is there.
    """
    if not is_uri(place):
        return Path(place)
    uri = str(place)
    if is_there(uri):
        return stack.enter_context(at_hand(uri))
    if not (found := uris_below(uri)):
        raise EmbedstoreError(f"there is nothing at {uri}; name a file, or what is before a '/'")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="embedstore-")))
    root = folder / name_of(uri)
    for each in found:
        target = root / each[len(uri) :].strip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        download(each, target)
    return root


@contextmanager
def brought_in(place: Place) -> Iterator[Path]:
    """Give a local copy of a file, or of all files below a place: see `brought`."""
    with ExitStack() as stack:
        path = brought(place, stack)
        with named(path, place):
            yield path


@contextmanager
def named(path: Path, place: Place) -> Iterator[None]:
    """Have errors about a local path name the place that it stands for."""
    try:
        yield
    except EmbedstoreError as e:
        if is_uri(place):
            e.args = (str(e).replace(str(path), str(place)), *e.args[1:])
        raise


def as_delivered(
    rows: Sequence[Mapping[str, Any]], path: Path, place: Place
) -> list[dict[str, Any]]:
    """Return rows about files whose `file` is where `delivered` brings it."""
    return [{**r, "file": str(r["file"]).replace(str(path), str(place), 1)} for r in rows]


@contextmanager
def delivered(place: Place) -> Iterator[Path]:
    """Give a local path to write a file or a folder to; what is there is brought to its place.

    A local one is itself. On an object store each file has its name once it is whole, an index.html
    last; nothing is brought where an error ends this.
    """
    if not is_uri(place):
        yield Path(place)
        return
    uri = str(place)
    with tempfile.TemporaryDirectory(prefix="embedstore-") as folder:
        path = Path(folder) / name_of(uri)
        with named(path, place):
            yield path
        if path.is_file():
            upload(path, uri)
            return
        files = (p for p in path.rglob("*") if p.is_file())
        for file in sorted(files, key=lambda p: (p.name == "index.html", p.stat().st_mtime_ns)):
            upload(file, f"{uri}/{file.relative_to(path).as_posix()}")


def _fetch(uri: str, size: int, entry: Path) -> None:
    """Fill an entry, whole or not at all; the caller holds its lock."""
    files = [uri, *_companions(uri)]
    start = len(uri.rsplit("/", 1)[0]) + 1
    size += sum(found[0] for f in files[1:] if (found := size_of(f)) is not None)
    _make_room(uri, size, entry.parent)
    partial = Path(tempfile.mkdtemp(prefix=".part-", dir=entry.parent))
    try:
        for each in files:
            target = partial / each[start:]
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                download(each, target)
            except OSError as e:
                if isinstance(e, FileNotFoundError):
                    raise
                raise EmbedstoreError(
                    f"{uri} cannot be kept in {entry.parent} ({e.strerror or e}); {FOLDER} names "
                    "another folder"
                ) from e
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _companions(uri: str) -> list[str]:
    """Return the other files of a slide that is more than one."""
    stem, dot, suffix = uri.rpartition(".")
    if f"{dot}{suffix}".lower() in _WITH_FOLDER:
        return uris_below(stem)
    if f"{dot}{suffix}".lower() in _WITH_SIBLINGS:
        folder = uri.rsplit("/", 1)[0]
        return [u for u in uris_below(folder) if u != uri and u.rsplit("/", 1)[0] == folder]
    return []


def limit(folder: Path, held: int) -> int:
    """Return how many bytes the cache may take, `held` of which it has."""
    if not (text := os.environ.get(LIMIT)):
        return int(SHARE * (shutil.disk_usage(folder).free + held))
    try:
        gb = float(text)
    except ValueError:
        gb = -1.0
    if not gb > 0:
        raise EmbedstoreError(f"{LIMIT} is '{text}', which is no number of GB above 0")
    return int(gb * 1e9)


def _make_room(uri: str, size: int, folder: Path) -> None:
    """Give up the longest unused entries until there is room; those in use stay."""
    entries = {e: _bytes(e) for e in folder.iterdir() if e.is_dir() and e.name[0] != "."}
    held = sum(entries.values())
    allowed = limit(folder, held)
    if size > allowed:
        raise EmbedstoreError(
            f"{uri} has {size / 1e9:,.2f} GB, the cache in {folder} may hold {allowed / 1e9:,.2f}; "
            f"set {LIMIT} higher, or {FOLDER} to a folder on a larger disk"
        )
    for left in folder.glob(".part-*"):  # of processes that were killed
        if time.time() - _used_at(left) > _A_DAY:
            shutil.rmtree(left, ignore_errors=True)
    for entry in sorted(entries, key=_used_at):
        if held + size <= allowed:
            return
        if _given_up(entry):
            held -= entries[entry]


def _used_at(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0


def _bytes(entry: Path) -> int:
    with contextlib.suppress(OSError):  # another process gives it up
        return sum(f.stat().st_size for f in entry.rglob("*") if f.is_file())
    return 0


def _given_up(entry: Path) -> bool:
    """Delete an entry that nobody holds; return whether it is gone."""
    if fcntl is None:
        return False
    with _lock_file(entry).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        shutil.rmtree(entry, ignore_errors=True)
        return not entry.is_dir()


def _lock_file(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}.lock")


@contextmanager
def _locked(entry: Path) -> Iterator[IO[bytes]]:
    """Hold an entry alone, to fill it."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock_file(entry).open("ab")
    except OSError as e:
        raise EmbedstoreError(
            f"nothing can be kept in {entry.parent} ({e.strerror or e}); {FOLDER} names another "
            "folder"
        ) from e
    with lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX if not entry.is_dir() else fcntl.LOCK_SH)
            if not entry.is_dir():  # given up since it was looked for
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _share(lock: IO[bytes]) -> None:
    if fcntl is not None:
        fcntl.flock(lock, fcntl.LOCK_SH)
