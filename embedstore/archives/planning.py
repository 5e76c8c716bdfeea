"""What is to be had of a public dataset: asked of its archives, before any of it is fetched."""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from embedstore.archives.catalogue import PUBLIC, Public, Source
from embedstore.archives.clients import ARCHIVES
from embedstore.archives.remote import Record, RemoteFile
from embedstore.errors import EmbedstoreError, UsageError, nearest


@dataclass(frozen=True)
class Wanted:
    """A file of a plan, and where it goes, below the dataset's folder."""

    file: RemoteFile
    path: str
    source: Source


@dataclass(frozen=True)
class Plan:
    """What is to be had of a dataset: its files, what the archives say of it, what is left out."""

    name: str
    public: Public
    records: Mapping[tuple[str, str], Record]
    wanted: Sequence[Wanted]
    n_left_out: int = 0

    @property
    def n_bytes(self) -> int:
        """How many bytes all of it has."""
        return sum(w.file.size for w in self.wanted)

    def terms(self) -> list[str]:
        """Return what is to be known before it is fetched: title, licence, citation, size."""
        lines = []
        for (archive, identifier), record in self.records.items():
            lines += [
                f"{record.title} ({archive} {identifier})",
                f"licence: {record.licence}",
                f"cite: {record.citation}",
            ]
        lines.append(f"cite: {self.public.citation}")
        lines.append(f"{len(self.wanted):,} files, {self.n_bytes / 1e9:,.2f} GB")
        if self.public.note:
            lines.append(self.public.note)
        return list(dict.fromkeys(lines))


def catalogue() -> list[dict[str, Any]]:
    """Return a row a public dataset, as known without a network."""
    return [
        {
            "name": name,
            "about": p.about,
            "licence": p.licence,
            "gb": p.gb,
            "archives": ", ".join(dict.fromkeys(f"{s.archive} {s.identifier}" for s in p.sources)),
            "citation": p.citation,
        }
        for name, p in PUBLIC.items()
    ]


def public(name: str) -> Public:
    """Return a dataset of the catalogue; UsageError for another name."""
    if name not in PUBLIC:
        raise UsageError(
            f"unknown public dataset '{name}'; known: {', '.join(PUBLIC)}{nearest(name, PUBLIC)}"
        )
    return PUBLIC[name]


def plan(name: str, only: str | None = None) -> Plan:
    """Ask the archives for a dataset's files; only: how many images, or a pattern of their names.

    UsageError for what `only` cannot be; EmbedstoreError where an archive does not answer, lacks
    what is needed, or no image fits.
    """
    of = public(name)
    chosen = _chooser(only)
    keys = list(dict.fromkeys((s.archive, s.identifier) for s in of.sources))
    records = {(a, i): ARCHIVES[a](i) for a, i in keys}
    wanted: list[Wanted] = []
    n_left_out = 0
    for source in of.sources:
        files = _matching(records[source.archive, source.identifier], source)
        if not files:
            raise EmbedstoreError(
                f"{source.archive} {source.identifier} has no files {', '.join(source.patterns)}; "
                "the archive may have changed"
            )
        if source.images:
            kept = chosen(files)
            if not kept:
                raise EmbedstoreError(
                    f"--only '{only}' fits none of {len(files):,} images, such as {files[0].path}"
                )
            n_left_out += len(files) - len(kept)
            files = kept
        wanted += [Wanted(f, _local(f, source), source) for f in files]
    _check_paths(wanted)
    return Plan(name, of, records, wanted, n_left_out)


def _matching(record: Record, source: Source) -> list[RemoteFile]:
    fit = [f for f in record.files if any(fnmatch.fnmatch(f.path, p) for p in source.patterns)]
    return sorted(fit, key=lambda f: _natural(f.path))


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", path)]


def _chooser(only: str | None) -> Callable[[Sequence[RemoteFile]], list[RemoteFile]]:
    """Return what chooses images: the first N in order of name, spread over folders, or a glob."""
    if only is None:
        return list
    if number := re.fullmatch(r"\s*(\d+)(?:\s+(?:slides?|images?|patches))?\s*", only):
        n = int(number[1])
        if n < 1:
            raise UsageError(f"--only '{only}': give at least 1")
        return lambda files: _first(files, n)
    pattern = only.strip()
    if not pattern:
        raise UsageError("--only: give a number of slides, such as '5 slides', or a pattern")
    return lambda files: [
        f for f in files if fnmatch.fnmatch(f.path, pattern) or fnmatch.fnmatch(_name(f), pattern)
    ]


def _first(files: Sequence[RemoteFile], n: int) -> list[RemoteFile]:
    """Return n files, in turns from each folder: patches lie in one a class."""
    folders: dict[str, list[RemoteFile]] = {}
    for f in files:
        folders.setdefault(f.path.rpartition("/")[0], []).append(f)
    places = {f: (k, d) for d, of in enumerate(folders.values()) for k, f in enumerate(of)}
    return sorted(files, key=lambda f: places[f])[:n]


def _name(file: RemoteFile) -> str:
    return file.path.rpartition("/")[2]


def _local(file: RemoteFile, source: Source) -> str:
    return str(PurePosixPath(source.folder) / file.path.removeprefix(source.strip))


def _check_paths(wanted: Sequence[Wanted]) -> None:
    """Raise EmbedstoreError where an archive names a file outside of the folder, or one twice."""
    seen: set[str] = set()
    for w in wanted:
        parts = PurePosixPath(w.path)
        if parts.is_absolute() or ".." in parts.parts or "\\" in w.path or not w.path.isprintable():
            raise EmbedstoreError(f"the archive names a file '{w.path}', which is not fetched")
        if w.path.casefold() in seen:
            raise EmbedstoreError(f"the archive has two files '{w.path}'")
        seen.add(w.path.casefold())


def file_below(folder: Path, path: str) -> Path:
    """Return a path below a folder; a * in it stands for the one file that fits."""
    if "*" not in path:
        return folder / path
    found = sorted(folder.glob(path))
    if len(found) != 1:
        raise EmbedstoreError(f"{folder} has {len(found)} files {path}, where one is expected")
    return found[0]
