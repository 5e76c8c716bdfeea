"""Which file a slide or patch is: its fingerprint, and whether it is still the same."""

import hashlib
from pathlib import Path

from embedstore.errors import SlideError
from embedstore.files.at_hand import at_hand
from embedstore.files.objects import Place, is_uri

CHANGED = (
    "is not the file that was added, it has changed since: `embedstore add` takes it as it is now"
)
"""What is said of a file whose fingerprint is another one, after its path."""


def check_fingerprint(path: Place, expected: str | None) -> None:
    """Raise SlideError where a file's fingerprint is another one; None expects nothing."""
    if expected is None:
        return
    try:
        found = fingerprint(path)
    except OSError as e:
        raise SlideError(f"{path} cannot be read: {e.strerror or e}") from e
    if found != expected:
        raise SlideError(f"{path} {CHANGED}")


def state_of(path: Place) -> str:
    """Return what changes when a file is written to or replaced: its size and time of change.

    What was fetched from an object store is a copy, which stays as it is.
    """
    if is_uri(path):
        return "a copy"
    try:
        stat = Path(path).stat()
    except OSError:
        return "gone"
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"


def fingerprint(place: Place) -> str:
    """Return a digest of a file's length and its ends: enough to see that a slide was replaced."""
    ends = 2**16
    with at_hand(place) as path, path.open("rb") as f:
        n = path.stat().st_size
        digest = hashlib.sha256(f"{n}|".encode() + f.read(ends))
        f.seek(max(n - ends, 0))
        digest.update(f.read(ends))
    return digest.hexdigest()[:16]
