"""What is wrong with a store, and how it is mended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Finding:
    """Rows of a table, or files, that are not as they should be.

    check: keys, orphans, stale, values, digests or tables; examples: a few of the n things found.
    advice: what `mend` does, or where it can do nothing, what its owner can. is_mended says that
    it has been done; `mending` does it.
    """

    check: str
    table: str
    n: int
    says: str
    examples: Sequence[str]
    advice: str
    mending: Callable[[], object] | None = field(default=None, repr=False)
    is_mended: bool = False

    @property
    def can_be_mended(self) -> bool:
        """Return whether `mend` can do something about it."""
        return self.mending is not None

    def row(self) -> dict[str, object]:
        """Return it as a row to print."""
        return {
            "check": self.check,
            "table": self.table,
            "n": self.n,
            "found": self.says,
            "example": ", ".join(self.examples),
            "advice": self.advice,
            "mended": self.is_mended,
        }
