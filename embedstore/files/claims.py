"""What files claim to hold, and what they unpack to: refused before it fills the memory."""

import gzip
import os
import zipfile
from pathlib import Path

from embedstore.errors import EmbedstoreError

RATIO, AT_LEAST = 200, 2**28
"""A file may unpack to so many times its size, or to so many bytes: tables and vectors pack
tenfold, a file made to fill the memory a thousandfold."""


def memory() -> int:
    """Return how many bytes of memory this machine has; what cannot be told is taken as 64 GB."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**36


def check_claim(path: Path, n_bytes: int, what: str) -> None:
    """Raise EmbedstoreError where a file claims to hold more bytes than fit into the memory."""
    if n_bytes > memory():
        raise EmbedstoreError(
            f"{path} claims to hold {what} of {n_bytes / 1e9:,.0f} GB, this machine has "
            f"{memory() / 1e9:,.0f} GB of memory: it is damaged, or too large to be read here"
        )


def check_unpacked(path: Path, n_bytes: int, n_packed: int) -> None:
    """Raise EmbedstoreError where a file unpacks to far more than data of its kind does."""
    if n_bytes > max(AT_LEAST, RATIO * n_packed):
        raise EmbedstoreError(
            f"{path} unpacks to {n_bytes / max(n_packed, 1):,.0f} times its size or more, as no "
            "data of its kind does: it was made to fill the memory, and is not read"
        )


def check_zip(path: Path) -> None:
    """Raise EmbedstoreError where the members of a zip unpack to too much; others pass."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            size = sum(member.file_size for member in file.infolist())
        check_claim(path, size, "arrays")
        check_unpacked(path, size, path.stat().st_size)


def check_gzip(path: Path) -> None:
    """Raise EmbedstoreError where a gzip file unpacks to too much; it is unpacked to know."""
    packed, size = path.stat().st_size, 0
    with gzip.open(path) as file:
        while part := file.read(2**20):
            size += len(part)
            check_unpacked(path, size, packed)
