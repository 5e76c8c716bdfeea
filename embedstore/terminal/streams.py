"""The process's own streams, which may be closed, full, or of an alphabet that lacks letters."""

import contextlib
import errno
import os
import sys
from typing import TextIO, cast

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
"""What a stream answers that takes nothing more."""


def settle_streams() -> None:
    """Make stdout and stderr fit to be written to, and arguments the text that was typed.

    A closed one leads nowhere; letters that one cannot hold are written as their codes.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, cast(TextIO, open(os.devnull, "w")))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.argv = [_typed(word) for word in sys.argv]


def _typed(word: str) -> str:
    """Return an argument as UTF-8 where the locale knew no better than to keep its bytes."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return os.fsencode(word).decode(errors="backslashreplace")
    return word


def is_full(error: OSError) -> bool:
    """Return whether an error is a stream's, that is: names no file, and says it takes no more."""
    return error.filename is None and error.errno in FULL


def finish_streams() -> None:
    """Write out what waits; what cannot be written is given up, without a word at the end."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
