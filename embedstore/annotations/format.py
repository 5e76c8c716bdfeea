"""What an annotation format is: how its files are recognised and read."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.annotations.source import AnnotationFile
from embedstore.files.tables import is_parquet, table_columns


@dataclass(frozen=True)
class Glance:
    """What can be seen of a file or folder at little cost, each thing when it is asked for."""

    path: Path

    @functools.cached_property
    def head(self) -> bytes:
        """The first bytes of a file; none of a folder."""
        if self.path.is_dir():
            return b""
        with self.path.open("rb") as f:
            return f.read(4096)

    @functools.cached_property
    def is_json(self) -> bool:
        """Whether a file begins as JSON objects and lists do, after a byte order mark."""
        return self.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))

    @functools.cached_property
    def json(self) -> Any:
        """What a JSON file holds; ValueError where it does not parse."""
        return load_json(self.path)

    @functools.cached_property
    def is_table(self) -> bool:
        """Whether a file is a delimited or Parquet table."""
        if self.path.is_dir():
            return False
        is_delimited = self.path.suffix.lower() in (".csv", ".tsv", ".txt")
        is_text = is_delimited and b"\x00" not in self.head and not self.is_json
        return is_text or is_parquet(self.path)

    @functools.cached_property
    def columns(self) -> set[str]:
        """The columns of a table; none of any other file."""
        return set(table_columns(self.path)) if self.is_table else set()


@dataclass(frozen=True)
class Format:
    """A format: read makes an AnnotationFile of a path; claim says whether a file is of it.

    claim returns None where it is not, else notes on what was taken for granted. is_last: claims
    only what no other format does. Both may raise KeyError, ValueError and their like.
    """

    read: Callable[[Path], AnnotationFile]
    claim: Callable[[Glance], list[str] | None]
    is_last: bool = False


def load_json(path: Path) -> Any:
    """Return what a JSON file in UTF-8, with or without a byte order mark, holds."""
    return json.loads(path.read_text(encoding="utf-8-sig"))
