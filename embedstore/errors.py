"""The one family of errors a user can cause and mend, and the name that may have been meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean '...'?" for a name that one of these resembles, else ""."""
    found = get_close_matches(name, list(names), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""


class EmbedstoreError(Exception):
    """Raised for wrong input or data; the message names it, what is allowed and the way out."""


class UsageError(EmbedstoreError):
    """Raised for a value of an option that no store would allow; a command ends with code 2."""


class SlideError(EmbedstoreError):
    """Raised when one slide cannot be read; an ingest sets the slide aside and goes on."""
