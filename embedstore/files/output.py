"""Writing a file that is whole or not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedstore.errors import EmbedstoreError


def write_whole(path: Path, write: Callable[[Any], Any]) -> None:
    """Have write(binary stream) fill a file, which takes its name only once it is complete.

    Links are followed; a pipe or a device is written to, never replaced. EmbedstoreError where
    the file system refuses; whatever goes wrong, what was there before stays.
    """
    path = path.resolve()
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as sink:
                write(sink)
            return
        partial = path.with_name(path.name + ".part")
        try:
            with partial.open("wb") as sink:
                write(sink)
            partial.replace(path)
        finally:
            if partial.is_file():
                partial.unlink()
    except BrokenPipeError:
        raise
    except OSError as e:
        raise EmbedstoreError(f"{path} cannot be written: {e.strerror or e}") from e
