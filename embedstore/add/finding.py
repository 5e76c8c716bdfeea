"""Where the files of slides and patches are: in a folder, beside the annotations, or as stated."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedstore.annotations.source import AnnotationFile
from embedstore.errors import EmbedstoreError
from embedstore.files.at_hand import is_there
from embedstore.files.folders import files_below
from embedstore.files.objects import Place, is_uri, join, name_of, uris_below
from embedstore.files.packed import SEPARATOR, exists
from embedstore.files.tables import file_name
from embedstore.slides.slide import SLIDE_SUFFIXES


def beside_of(annotations: Place, content: AnnotationFile) -> Place:
    """Return the folder that paths in a file are relative to, where the file is."""
    if not is_uri(annotations):
        return content.folder
    return annotations if content.path.is_dir() else str(annotations).rpartition("/")[0]


def lies_in(place: Place, folder: Place) -> bool:
    """Return whether a place is in a folder or below it, by its name: links are followed."""
    if is_uri(place) or is_uri(folder):
        parts = str(place).split("/")
        return str(place).startswith(f"{str(folder).rstrip('/')}/") and ".." not in parts
    return Path(os.path.abspath(place)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100


class SlideFinder:
    """Finds the file of a slide or patch in `--slides DIR` or beside the annotation file."""

    def __init__(self, content: AnnotationFile, folder: Place | None, beside: Place) -> None:
        """Look in folder, if given; paths that the file states may be relative to `beside`."""
        self._kind, self._folder, self._beside = content.kind, folder, beside
        self._by_name: dict[str, list[Place]] | None = None
        self._by_stem: dict[str, list[Place]] = defaultdict(list)
        self._listed: dict[str, set[str]] = {}

    def find(self, name: str, attributes: Mapping[str, str]) -> Place | None:
        """Return where a slide's file is, or None; attributes are what is known of the slide.

        Looked for are its path, if stated, its name, and the name with any suffix of slides, in the
        folder or below it; then whatever other attribute is the name of a file there. A patch that
        is named without a folder may lie in any, if one file has its name.
        EmbedstoreError where several files of a slide would do.
        """
        stated = attributes.get("path")
        roots = [d for d in (self._folder, self._beside) if d is not None]
        if self._kind == "patch":
            places = [join(d, name) for d in roots]
        else:
            folder = self._folder
            places = [join(folder, stated or name), join(folder, name)] if folder else []
            if stated:
                places += [stated if is_uri(stated) else Path(stated), join(self._beside, stated)]
        within = [p for p in places if any(lies_in(p, root) for root in roots)]
        file = next((p for p in within if self._is_there(p)), None)
        if file is None and self._kind == "slide":
            file = self._below(name) or self._named_by(name, attributes)
        elif file is None:
            file = self._only_one_below(name)
        if file is None and (outside := [p for p in places if p not in within]):
            self._refuse(name, outside)
        return file if file is None or is_uri(file) else Path(file).resolve()

    def _refuse(self, name: str, outside: Sequence[Place]) -> None:
        """Raise EmbedstoreError where a file is there, outside of where files may be read."""
        file = next((p for p in outside if self._is_there(p)), None)
        if file is not None:
            raise EmbedstoreError(
                f"{name} is stated at {file}, which is neither in {self._folder or 'a folder'} "
                f"(--slides) nor beside the annotations in {self._beside}; give --slides the "
                "folder that holds it"
            )

    def _is_there(self, place: Place) -> bool:
        if not is_uri(place):
            return exists(Path(place))
        uri = str(place).partition(SEPARATOR)[0]
        for folder in (self._folder, self._beside if self._kind == "patch" else None):
            if folder is not None and is_uri(folder) and uri.startswith(f"{folder}/"):
                return uri in self._uris(str(folder))
        return is_there(uri)

    def _uris(self, folder: str) -> set[str]:
        """Return what is below a URI, asked once: a request a file would take its time."""
        if folder not in self._listed:
            self._listed[folder] = set(uris_below(folder))
        return self._listed[folder]

    def _named_by(self, name: str, attributes: Mapping[str, str]) -> Place | None:
        """Return the file that an attribute names with its suffix, as a column filename does."""
        named = {v for v in attributes.values() if Path(v).suffix.lower() in SLIDE_SUFFIXES}
        files = {f for v in named if (f := self._below(file_name(v))) is not None}
        if len(files) > 1:
            raise self._several(name, sorted(files, key=str))
        return files.pop() if files else None

    def _only_one_below(self, name: str) -> Place | None:
        """Return the only file of a name in the folder's tree; None for a path, or several."""
        if self._folder is None or "/" in name:
            return None
        self._list()
        assert self._by_name is not None
        files = self._by_name.get(name, [])
        return files[0] if len(files) == 1 else None

    def _list(self) -> None:
        """List what is below the folder, once."""
        if self._by_name is None and self._folder is not None:
            self._by_name = defaultdict(list)
            is_remote = is_uri(self._folder)
            found: Sequence[Place] = (
                sorted(self._uris(str(self._folder)))
                if is_remote
                else files_below(Path(self._folder))
            )
            for path in found:
                known = Path(name_of(path))
                if known.suffix.lower() in SLIDE_SUFFIXES:
                    self._by_name[known.name].append(path)
                    self._by_stem[known.stem].append(path)

    def _below(self, name: str) -> Place | None:
        """Return the one slide file of a name, with or without its suffix, in the folder's tree."""
        if self._folder is None:
            return None
        self._list()
        assert self._by_name is not None
        candidates = self._by_name.get(name) or self._by_stem.get(name, [])
        if len(candidates) > 1:
            raise self._several(name, candidates)
        return candidates[0] if candidates else None

    def _several(self, name: str, files: Sequence[Place]) -> EmbedstoreError:
        assert self._folder is not None
        below = (
            str(f).removeprefix(f"{self._folder}/")
            if is_uri(f)
            else Path(f).relative_to(self._folder).as_posix()
            for f in files
        )
        named = ", ".join(below)
        return EmbedstoreError(
            f"slide {name} could be {named} in {self._folder}; "
            "name it with its ending, or keep one of them there"
        )
