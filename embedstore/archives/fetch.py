"""The verb `fetch`: a public dataset onto the disk, whole, checked; broken off, it goes on."""

import contextlib
import json
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from embedstore.archives.http import PART, download, problem
from embedstore.archives.planning import Plan, Wanted
from embedstore.archives.tables import write_table
from embedstore.errors import EmbedstoreError
from embedstore.files.output import to_json, write_whole

STATE = ".embedstore-fetch.json"
"""What was checked already: path to size, time of change and checksum."""
AT_ONCE = 4
_SPARE = 2**28
"""Bytes that stay free on the disk."""

_EVERY = 1.0
"""Seconds between two writings of `STATE`; what a kill loses of it is checked again."""

Progress = Callable[[int, int], None]


@dataclass
class Fetched:
    """What came of it: files new and there before, bytes, and where they are."""

    folder: Path
    n_new: int = 0
    n_there: int = 0
    n_bytes: int = 0
    notes: list[str] = field(default_factory=list)

    def row(self, name: str) -> dict[str, Any]:
        """Return what the command prints."""
        return {
            "dataset": name,
            "folder": str(self.folder),
            "fetched": self.n_new,
            "there_before": self.n_there,
            "bytes": self.n_bytes,
        }


def fetch(asked: Plan, folder: Path, on_progress: Progress = lambda done, total: None) -> Fetched:
    """Have the files of a plan in a folder; what is there and checked is left alone.

    Interrupted, the same call goes on. EmbedstoreError where the disk is too small, or a file
    cannot be had; all that came by then is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _State(folder)
    missing = [w for w in asked.wanted if not state.has(w)]
    _check_room(folder, missing)
    done = Fetched(folder, len(missing), len(asked.wanted) - len(missing), asked.n_bytes)
    meter = _Meter(sum(w.file.size for w in missing), on_progress)
    for w in missing:
        part = folder / (w.path + PART)
        meter.add(min(part.stat().st_size, w.file.size) if part.exists() else 0)
    try:
        _each(missing, lambda w: _have(w, folder, state, meter))
        for w in asked.wanted:
            if w.source.unpack:
                _unpack(folder / w.path, folder, state)
    finally:
        state.save()
    if asked.public.table is not None:
        write_table(asked.public.table, folder)
    if asked.n_left_out:
        done.notes.append(f"{asked.n_left_out:,} images are left out by --only")
    return done


def _have(w: Wanted, folder: Path, state: "_State", meter: "_Meter") -> None:
    target = folder / w.path
    if target.is_file() and problem(target, w.file) is None:  # brought by other means
        meter.add(w.file.size)
    else:
        download(w.file, target, meter.add)
    state.note(w)


def _each(missing: Sequence[Wanted], work: Callable[[Wanted], None]) -> None:
    """Do the work, some at once; the first error ends it once those under way have ended."""
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch")
    try:
        for future in [pool.submit(work, w) for w in missing]:
            future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_room(folder: Path, missing: Sequence[Wanted]) -> None:
    need = 0
    for w in missing:
        part = folder / (w.path + PART)
        have = part.stat().st_size if part.exists() else 0
        need += max(w.file.size - have, 0) * (2 if w.source.unpack else 1)
    free = shutil.disk_usage(folder).free
    if need + _SPARE > free:
        raise EmbedstoreError(
            f"{folder} has {free / 1e9:,.1f} GB free, {need / 1e9:,.1f} GB are needed; name "
            "another folder with --dest, or take less with --only"
        )


class _Meter:
    """Bytes of several threads, told as one."""

    def __init__(self, total: int, on_progress: Progress) -> None:
        self._lock, self._done, self._total, self._tell = threading.Lock(), 0, total, on_progress
        on_progress(0, total)

    def add(self, n: int) -> None:
        with self._lock:
            self._done += n
            self._tell(self._done, self._total)


class _State:
    """Which files of a folder were checked, so that they need not be read again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path, self._lock = folder, folder / STATE, threading.Lock()
        self._known: dict[str, Any] = {}
        self._saved_at = time.monotonic()
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._path.read_text())
            self._known = known if isinstance(known, dict) else {}

    def has(self, w: Wanted) -> bool:
        now = self._of(w.path, w.file.checksum)
        return now is not None and self._known.get(w.path) == now

    def note(self, w: Wanted) -> None:
        self.put(w.path, self._of(w.path, w.file.checksum))

    def put(self, path: str, value: Any) -> None:
        with self._lock:
            self._known[path] = value
            is_due = time.monotonic() - self._saved_at > _EVERY
        if is_due:
            self.save()

    def save(self) -> None:
        with self._lock:
            text = to_json(self._known).encode()
            self._saved_at = time.monotonic()
            write_whole(self._path, lambda sink: sink.write(text))

    def get(self, path: str) -> Any:
        return self._known.get(path)

    def _of(self, path: str, checksum: str | None) -> list[Any] | None:
        try:
            there = (self._folder / path).stat()
        except OSError:
            return None
        return [there.st_size, there.st_mtime_ns, checksum]


def _unpack(archive: Path, folder: Path, state: _State) -> None:
    """Unpack a zip file beside itself, once; a name that leaves the folder is an error."""
    key, stamp = f"{archive.name}/", archive.stat().st_mtime_ns
    if state.get(key) == stamp:
        return
    try:
        with zipfile.ZipFile(archive) as packed:
            for name in packed.namelist():
                parts = PurePosixPath(name.replace("\\", "/"))
                if parts.is_absolute() or ".." in parts.parts:
                    raise EmbedstoreError(f"{archive} holds a file '{name}', which is not unpacked")
            packed.extractall(folder)
    except zipfile.BadZipFile as e:
        raise EmbedstoreError(f"{archive} cannot be unpacked ({e})") from e
    state.put(key, stamp)
