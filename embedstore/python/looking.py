"""The verbs that look at cells: sheet, tag, explore."""

from pathlib import Path

from embedstore.python.asked import place_of
from embedstore.python.located import Located
from embedstore.python.rows import DataFrame, Rows, arrow_of, rows_of


class Looking(Located):
    """What shows cells, and names sets of them."""

    def sheet(
        self, query: str, output: str | Path, *, limit: int = 500, overwrite: bool = False
    ) -> Rows:
        """Write a page that shows the patch of each row of a query with annotation_id."""
        from embedstore.files.targets import page_target
        from embedstore.reading.sheet import sheet, write_sheet

        to = page_target(str(output), overwrite=overwrite)
        made = sheet(self.open(), query, limit=limit)
        write_sheet(made, to)
        return rows_of("sheet", [made.row(str(output))])

    def explore(
        self,
        dataset: str | None = None,
        *,
        model: str,
        output: str | Path,
        where: str | None = None,
        umap: bool = False,
        seed: int = 42,
        pictures: bool = True,
        overwrite: bool = False,
    ) -> Rows:
        """Write a page to walk through a model's embeddings, each point with its patch.

        It is embedding-atlas's, in a folder: `python -m http.server -d FOLDER` shows it. See
        `embedstore explore --help`.
        """
        from embedstore.files.at_hand import delivered
        from embedstore.files.targets import folder_target
        from embedstore.python.progress import progress
        from embedstore.reading.explore import ExploreOptions, explore

        to = folder_target(str(output), own="index.html", overwrite=overwrite)
        options = ExploreOptions(model, dataset, where, umap, seed, pictures)
        with delivered(to) as folder, progress("making", "pictures") as bar:
            made = explore(self.open(), options, folder, bar)
        return rows_of("explore", [made.row(model, str(output))], made.notes)

    def tag(
        self,
        name: str | None = None,
        query: str | DataFrame | None = None,
        *,
        from_file: str | Path | None = None,
        remove: bool = False,
        output: str | Path | None = None,
        overwrite: bool = False,
    ) -> Rows:
        """Name a set of annotations, to cut any slice by: where="'odd' in tags".

        query: SQL whose rows have annotation_id, or a DataFrame that has it. Returns a row per tag
        and dataset. See `embedstore tag --help`.
        """
        from embedstore.exchange.tagging import check_asked, tag_and_write
        from embedstore.files.targets import folder_target
        from embedstore.store.tags import counted, ids_of

        changes = remove or query is not None or from_file is not None
        check_asked(name, changes=changes, output=None if output is None else str(output))
        to = None if output is None else folder_target(str(output), own=None, overwrite=overwrite)
        opened = self.open(write=changes)
        if name is None:
            return rows_of("tags", counted(opened))
        named = ids_of(opened, arrow_of(query)) if isinstance(query, DataFrame) else query
        file = None if from_file is None else place_of(from_file)
        rows, notes = tag_and_write(opened, name, named, file, remove=remove, to=to)
        return rows_of("tags", rows, notes)
