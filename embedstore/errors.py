"""The one family of errors a user can cause and mend."""


class EmbedstoreError(Exception):
    """Raised for wrong input or data; the message names it, what is allowed and the way out."""


class UsageError(EmbedstoreError):
    """Raised for a value of an option that no store would allow; a command ends with code 2."""


class SlideError(EmbedstoreError):
    """Raised when one slide cannot be read; an ingest sets the slide aside and goes on."""
