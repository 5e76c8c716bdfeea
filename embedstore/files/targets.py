"""Where results go: what lies there already is replaced only where one asks for it."""

from pathlib import Path

from embedstore.errors import UsageError
from embedstore.files.at_hand import is_there
from embedstore.files.objects import Place, is_uri, join, place, uris_below


def target(output: str, *, overwrite: bool) -> Place:
    """Return the place of a file to be written; a pipe or a device is always fit.

    UsageError where a file is there already and `overwrite` is not given.
    """
    to = place(output)
    if not overwrite and is_there(to):
        raise UsageError(f"{output} is there already; --overwrite replaces it, or name another")
    return to


def page_target(output: str, *, overwrite: bool) -> Place:
    """Return the place of a page to be written; UsageError unless it is named FILE.html."""
    if not output.lower().endswith((".html", ".htm")):
        raise UsageError(f"{output}: a page is an HTML file; name FILE.html")
    return target(output, overwrite=overwrite)


def folder_target(output: str, *, own: str | None, overwrite: bool) -> Place:
    """Return the place of a folder to be written into, which may hold what is not of ours.

    own: the name of a file which says that an earlier call made the folder; what that wrote is
    replaced. None where nothing says so. UsageError where the folder has other files and
    `overwrite` is not given.
    """
    to = place(output)
    if overwrite or (own is not None and is_there(join(to, own))):
        return to
    is_used = bool(uris_below(str(to))) if is_uri(to) else Path(to).is_dir() and any_in(Path(to))
    if is_used:
        raise UsageError(
            f"{output} has other files; --overwrite writes among them, or name another folder"
        )
    return to


def any_in(folder: Path) -> bool:
    """Return whether a folder has any entry but hidden ones."""
    return any(not entry.name.startswith(".") for entry in folder.iterdir())
