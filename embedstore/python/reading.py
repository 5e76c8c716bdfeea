"""The verbs that only read a store: status, models, sql, neighbors, export; and its vectors."""

from pathlib import Path
from typing import TYPE_CHECKING

from embedstore.python.asked import bytes_of
from embedstore.python.located import Located
from embedstore.python.progress import progress
from embedstore.python.rows import Rows, problem_notes, rows_of

if TYPE_CHECKING:
    from embedstore.python.vectors import Embeddings


class Reading(Located):
    """What tells what a store holds."""

    def status(self, dataset: str | None = None) -> Rows:
        """Return a row per dataset and model: annotations done, missing, set aside; the table."""
        from embedstore.reading import status

        opened = self.open()
        rows = status.status(opened, dataset)
        names = dict.fromkeys(r["dataset"] for r in rows)
        notes = [n for d in names for n in problem_notes(status.problems(opened, d))]
        keys = ("dataset", "n_annotations", "model", "done", "missing", "set_aside", "dim")
        shown = [{k: r.get(k) for k in (*keys, "weights")} for r in rows]
        return rows_of(f"store {self.uri}", rows, notes, shown=shown)

    @staticmethod
    def models(*, check: bool = False) -> Rows:
        """Return the registry, or with check what weights can be had from here."""
        from embedstore.reading.models import available, registered

        if not check:
            return rows_of("models", registered())
        with progress("asking", "models") as on_progress:
            return rows_of("weights from here", available(on_progress))

    def sql(self, query: str, *, files: bool = False, max_memory: str | int | None = None) -> Rows:
        """Return the rows of one SELECT over the views (DuckDB, read only).

        files: it may read files. max_memory: what DuckDB may take, such as "8GB".
        """
        from embedstore.store.asking import stream_sql

        limit = bytes_of(max_memory)
        table = stream_sql(self.open(), query, files=files, max_memory=limit).read_all()
        return rows_of(query, table)

    def embeddings(
        self, model: str, dataset: str | None = None, *, where: str | None = None
    ) -> "Embeddings":
        """Return a model's vectors with their cells, as NumPy, pandas, Arrow or AnnData.

        Args:
            model: one that has embeddings.
            dataset: of this alone; None: of all.
            where: SQL condition on the view annotations.
        """
        from embedstore.python.vectors import load

        return load(self.open(), model, dataset, where)

    def neighbors(
        self,
        annotation_id: str,
        *,
        model: str,
        k: int = 10,
        where: str | None = None,
        metric: str = "cosine",
        exact: bool = False,
        index: bool = False,
        output: str | Path | None = None,
        overwrite: bool = False,
    ) -> Rows:
        """Return the annotations whose embeddings are nearest to one annotation's.

        output: FILE.html, a page with their patches.
        """
        from embedstore.files.targets import page_target
        from embedstore.reading.neighbors import neighbors
        from embedstore.reading.sheet import neighbors_sheet, write_sheet

        to = None if output is None else page_target(str(output), overwrite=overwrite)
        opened = self.open(write=index)
        nearest = neighbors(
            opened,
            annotation_id,
            model,
            k=k,
            where=where,
            metric=metric,
            exact=exact,
            index=index,
        )
        if to is not None:
            write_sheet(neighbors_sheet(opened, annotation_id, model, nearest), to)
        notes = ["found by an index, which may miss some; exact=True compares all"]
        return rows_of(
            f"nearest to {annotation_id}", nearest.rows, notes if nearest.by_index else ()
        )

    def export(
        self, dataset: str, *, model: str, output: str | Path, overwrite: bool = False
    ) -> Rows:
        """Write a model's embeddings of a dataset to a .parquet or .npz file."""
        from embedstore.exchange import export
        from embedstore.files.at_hand import delivered
        from embedstore.files.targets import target

        to = target(str(output), overwrite=overwrite)
        with delivered(to) as path, progress("writing", "embeddings") as bar:
            report = export(self.open(), dataset, model, path, bar)
        return rows_of(f"{dataset}: exported", [report.row(str(output))])
