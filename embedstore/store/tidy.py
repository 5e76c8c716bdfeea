"""Tables kept small: fragments merged, and what former versions alone hold given back.

A version that somebody may be reading is kept for an hour: a connection is pinned to the moment it
was made at. One that a recorded result was made of is kept as long as the result stands: it has a
tag. Whoever opens a store on a disk holds a shared lock on a file in it, so that a process
knows whether it is alone; on an object store it never is.
"""

import contextlib
import os
import threading
import warnings
import weakref
from collections.abc import Iterator, Set
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows): nobody is ever alone
    fcntl = None  # type: ignore[assignment]

from embedstore.errors import EmbedstoreError

if TYPE_CHECKING:
    from embedstore.store.store import Store

IN_USE = "in-use.lock"
"""The file that whoever has the store open holds a shared lock on."""

GRACE = timedelta(hours=1)
"""How long former versions stay where somebody else may be reading them."""

EVERY = 32
"""After so many versions of a table, the write that makes the next one tidies it."""

UNMERGED = ("patches", "embeddings.", "views.")
"""How the names of tables begin whose fragments only `compact` merges: their rows are large."""

_TAG = "result-"

_held: dict[str, int] = {}
_pinned: dict[tuple[str, str], "weakref.WeakSet[Any]"] = {}
_lock = threading.Lock()


def hold(uri: str, *, write: bool) -> None:
    """Tell other processes, until this one ends, that it may read the store.

    The file for it is made by the first that may write.
    """
    if fcntl is None or "://" in uri:
        return
    path = str(Path(uri).resolve() / IN_USE)
    with _lock, contextlib.suppress(OSError):
        held = _held.get(path)
        if held is not None and _is_same(held, path):
            return
        flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
        held = os.open(path, flags | os.O_CLOEXEC, 0o666)
        fcntl.flock(held, fcntl.LOCK_SH)
        if path in _held:  # of a store that was deleted since
            os.close(_held[path])
        _held[path] = held


def pin(uri: str, name: str, dataset: Any) -> None:
    """Remember that this process may read a table at the version of this dataset, while it is."""
    with _lock:
        _pinned.setdefault((uri, name), weakref.WeakSet()).add(dataset)


def compact(store: "Store", name: str) -> None:
    """Merge the small fragments that many writes leave; left for later while others write."""
    with _beside_others():
        table = store.open_table(name)
        if table.stats()["fragment_stats"]["num_fragments"] > 1:
            with _beside_others():
                table.optimize()
            give_back(store, name)


@contextmanager
def _beside_others() -> Iterator[None]:
    """Pass over what others do meanwhile: they write, or remove the table."""
    try:
        yield
    except (EmbedstoreError, OSError, RuntimeError, ValueError) as e:
        said = str(e).lower()
        if "conflict" not in said and "not found" not in said:
            raise


def give_back(store: "Store", name: str) -> None:
    """Free the space of deleted and replaced rows; left for later while others write."""
    store.forget_pins(name)
    _tidied(store, name, merged=True)


def keep_up(store: "Store", name: str) -> None:
    """Free what a table's former versions hold, once every `EVERY` of them: called by writes."""
    store.forget_pins(name)
    _tidied(store, name, merged=not name.startswith(UNMERGED))


def keep_up_all(store: "Store") -> None:
    """Tidy the tables of a local store that have many versions: before a command reads any."""
    if "://" in store.uri:
        return
    for folder in Path(store.uri).glob("*.lance"):
        if sum(1 for _ in (folder / "_versions").glob("*.manifest")) > EVERY:
            keep_up(store, folder.name.removesuffix(".lance"))


def _tidied(store: "Store", name: str, *, merged: bool) -> None:
    with alone(store.uri) as is_alone:
        is_read = not is_alone or len(_pinned.get((store.uri, name), ()))
        with _beside_others(), warnings.catch_warnings(action="ignore", category=UserWarning):
            table = store.open_table(name)
            if merged:
                table.optimize()
            table.to_lance().cleanup_old_versions(
                GRACE if is_read else timedelta(0), error_if_tagged_old_versions=False
            )


def keep_versions(store: "Store", name: str, versions: Set[int]) -> set[int]:
    """Let just these versions of a table outlive clean-ups, and return those that are there."""
    tags = store.open_table(name).to_lance().tags
    kept = {int(tag.removeprefix(_TAG)) for tag in tags.list() if tag.startswith(_TAG)}
    for version in versions - kept:
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # gone, or tagged meanwhile
            tags.create(f"{_TAG}{version}", version)
            kept.add(version)
    for version in kept - versions:
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            tags.delete(f"{_TAG}{version}")
    return kept & versions


@contextmanager
def alone(uri: str) -> Iterator[bool]:
    """Tell whether no other process has the store open; none opens it meanwhile."""
    held = _held.get(str(Path(uri).resolve() / IN_USE)) if "://" not in uri else None
    if fcntl is None or held is None:
        yield False
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fcntl.flock(held, fcntl.LOCK_SH)  # a lock that could not be raised is lost
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(held, fcntl.LOCK_SH)


def _is_same(held: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(held), Path(path).stat())
    except OSError:
        return False
