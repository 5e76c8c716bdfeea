"""The files of a folder that a user put there, without what systems leave beside them."""

import os
from collections.abc import Sequence
from pathlib import Path

SYSTEM = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "$recycle.bin")
"""Names, in lower case, that systems write; so is what begins with a dot (._a.png, .DS_Store)."""


def is_system(name: str) -> bool:
    """Return whether a file or folder of this name comes from a system and not from a user."""
    return name.startswith(".") or name.lower() in SYSTEM


def files_below(folder: Path, *, with_system: bool = False) -> list[Path]:
    """Return the files in a folder and its subfolders, sorted; folders that are links are followed.

    What systems leave is passed over, unless it is asked for. OSError where one cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    found: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [f for f in folders if with_system or not is_system(f)]
        found += [Path(root) / n for n in names if with_system or not is_system(n)]
    return sorted(found)


def note_unread(notes: list[str], folder: Path, read: Sequence[Path], what: str) -> None:
    """Append which files below a folder are not among those read; what says which are."""
    unread = [p.relative_to(folder).as_posix() for p in files_below(folder) if p not in set(read)]
    if unread:
        named = ", ".join(unread[:3]) + f" and {len(unread) - 3} more" * (len(unread) > 3)
        notes.append(f"{len(unread)} files of the folder were not read ({named}): {what}")
