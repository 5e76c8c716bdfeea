"""What an archive says of a dataset: its files, each with its size and checksum."""

from dataclasses import dataclass

MD5, GIT = "md5", "git"
"""Kinds of checksums: of the bytes; of the bytes as Git names a file (SHA-1)."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to be had: its path below the dataset's folder, bytes, checksum and address.

    kind None: the archive tells no checksum, so that its size alone can be checked.
    """

    path: str
    size: int
    kind: str | None
    checksum: str | None
    url: str


@dataclass(frozen=True)
class Record:
    """What an archive has under one name: title, licence and citation in its own words."""

    title: str
    licence: str
    citation: str
    files: tuple[RemoteFile, ...]
