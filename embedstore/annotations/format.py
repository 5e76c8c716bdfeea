"""What an annotation format is: how its files are recognised and read."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.annotations.columns import NOTHING, Declared, columns_of, roles
from embedstore.annotations.source import AnnotationFile
from embedstore.files.folders import files_below, is_system
from embedstore.files.packed import image_columns
from embedstore.files.tables import (
    DELIMITED,
    MALFORMED,
    PARQUET,
    is_delimited,
    is_parquet,
    plain_name,
)

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""Endings of files that may be a patch, lower case."""


@dataclass(frozen=True)
class Glance:
    """What can be seen of a file or folder at little cost, each thing when it is asked for."""

    path: Path
    declared: Declared = NOTHING

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
    def first_json(self) -> Any:
        """What a JSON file holds, or the first .json of a folder; None where none parses."""
        folder = list(self.path.iterdir()) if self.path.is_dir() else []
        of_folder = sorted(p for p in folder if p.name.lower().endswith(".json"))
        of_folder = [p for p in of_folder if p.is_file() and not is_system(p.name)]
        try:
            if self.path.is_dir():
                return load_json(of_folder[0]) if of_folder else None
            return self.json if self.is_json else None
        except MALFORMED:
            return None

    @functools.cached_property
    def is_table(self) -> bool:
        """Whether a file is a delimited or Parquet table."""
        if self.path.is_dir():
            return False
        is_wide = self.head.startswith((b"\xff\xfe", b"\xfe\xff"))  # UTF-16, as spreadsheets write
        is_text = is_wide or (b"\x00" not in self.head and not self.is_json)
        is_text = is_text and is_delimited(self.path)
        return is_text or self._is_packed_table or is_parquet(self.path)

    @property
    def _is_packed_table(self) -> bool:
        return self.head.startswith(b"\x1f\x8b") and is_delimited(self.path)

    @functools.cached_property
    def files(self) -> list[Path]:
        """The files of a folder that holds no image file; of any other, and of a file, none."""
        files = files_below(self.path) if self.path.is_dir() else []
        return [] if any(f.suffix.lower() in IMAGES for f in files) else files

    @property
    def tables(self) -> list[Path]:
        """Those files that end as tables do."""
        return [f for f in self.files if plain_name(f).endswith((*DELIMITED, *PARQUET))]

    @functools.cached_property
    def roles(self) -> set[str]:
        """What a table, or the first one of a folder, has columns for; path for one of images."""
        table = self.path if self.is_table else next(iter(self.tables), None)
        if table is None:
            return set()
        images = {"path"} if is_parquet(table) and image_columns(table) else set()
        return images | set(roles(table, columns_of(table, self.declared), self.declared))


@dataclass(frozen=True)
class Format:
    """A format: read makes an AnnotationFile of a path; claim says whether a file is of it.

    takes_columns: read takes a Declared as well. claim returns None where it is not, else notes on
    what was taken for granted. is_last: claims only what no other format does. Both may raise
    KeyError, ValueError and their like.
    """

    read: Callable[..., AnnotationFile]
    claim: Callable[[Glance], list[str] | None]
    is_last: bool = False
    takes_columns: bool = False


def load_json(path: Path) -> Any:
    """Return what a JSON file in UTF-8, with or without a byte order mark, holds."""
    return json.loads(path.read_text(encoding="utf-8-sig"))
