"""A store in Python: the verbs of `embedstore` as methods, their rows as frames."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from embedstore.python.filling import Filling
from embedstore.python.looking import Looking
from embedstore.python.progress import progress
from embedstore.python.reading import Reading
from embedstore.python.rows import Rows, rows_of

if TYPE_CHECKING:
    from embedstore.store import Store as Tables


class Store(Reading, Looking, Filling):
    """A store of embeddings by its place, a folder or s3://, gs://, az://.

    Each method does what the command of its name does and takes its options, by the same names
    (`embedstore add --help` tells what each means); it returns the rows that the command prints, as
    a DataFrame (`Rows`). Nothing is held open: what other processes write meanwhile is seen by the
    next call. Errors are `EmbedstoreError`, in the words of the commands.
    """

    def __repr__(self) -> str:
        """Return what makes it."""
        return f"Store({self.uri!r})"

    def _repr_html_(self) -> str:
        """Return what it holds as HTML."""
        if not self._is_there():
            return f"<p>no store at {escape(self.uri)} yet; its <code>add</code> makes one</p>"
        return self.status()._repr_html_()

    def doctor(self, *, mend: bool = False) -> Rows:
        """Examine the store, and with mend what can be mended; no rows: it is whole."""
        from embedstore import doctor

        opened = self.open(write=mend)
        with progress("examining", "rows") as on_progress:
            findings = doctor.examine(opened, on_progress)
        findings = doctor.mend(opened, findings) if mend else findings
        return rows_of(f"store {self.uri}", [f.row() for f in findings])

    def remove(
        self,
        dataset: str,
        *,
        model: str | None = None,
        slide: str | None = None,
        where: str | None = None,
        dry_run: bool = False,
    ) -> Rows:
        """Remove a dataset or a part of it with all that hangs on it; dry_run only counts."""
        from embedstore.store.removal import Part, plan_removal, remove

        opened = self.open(write=not dry_run)
        removal = plan_removal(opened, dataset, Part(model, slide, where))
        rows = [{"dataset": dataset, "of": what, "n": n} for what, n in removal.counts.items()]
        if not dry_run:
            remove(opened, removal)
        return rows_of(f"{dataset}: {'to be removed' if dry_run else 'removed'}", rows)


def tables_of(store: Store | str | Path, *, write: bool = False) -> "Tables":
    """Return the tables of a store, named by itself or by its place."""
    return (store if isinstance(store, Store) else Store(store)).open(write=write)
