"""The verbs that fill a store: demo, fetch, add, ingest, import."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from embedstore.annotations.columns import Box
from embedstore.annotations.source import Frame, Unit
from embedstore.errors import UsageError
from embedstore.python.asked import Many, cluster_of, many, place_of, several
from embedstore.python.located import Located
from embedstore.python.progress import progress
from embedstore.python.rows import Rows, problem_notes, rows_of

if TYPE_CHECKING:
    from embedstore.ingest import IngestOptions
    from embedstore.store import Store as Tables

RGB = tuple[float, float, float]


class Filling(Located):
    """What brings annotations, slides and embeddings into a store."""

    @staticmethod
    def demo(directory: str | Path = "demo") -> Rows:
        """Write a small generated dataset: slides of several stain domains with annotations."""
        from embedstore.demo.dataset import write_demo

        with progress("drawing slides", "slides") as on_slide:
            written = write_demo(Path(directory), progress=on_slide)
        files = (written.slides, written.midog_json, written.sliderunner_sqlite)
        return rows_of("demonstration", [{"file": str(f)} for f in files])

    def fetch(
        self,
        name: str | None = None,
        *,
        list_: bool = False,
        dest: str | Path | None = None,
        only: str | None = None,
        add: bool = True,
        yes: bool = False,
    ) -> Rows:
        """Fetch a public dataset by name from its archive, checked, and add it to the store.

        Without yes=True, which accepts its licence, the licence is all that comes. See
        `embedstore fetch --help`; without a name the rows are what is known by name.
        """
        from embedstore.add.fetched import add_fetched
        from embedstore.archives.fetch import fetch
        from embedstore.archives.planning import catalogue, plan, public
        from embedstore.reading import status

        if list_ or name is None:
            return rows_of("public datasets", catalogue())
        is_added = add and bool(public(name).add)
        asked = plan(name, only)
        if not yes:
            raise UsageError("\n".join([*asked.terms(), "yes=True accepts this and fetches it"]))
        folder = Path(dest) if dest is not None else Path("data") / name
        with progress("fetching", "MB") as bar:
            done = fetch(asked, folder, lambda n, of: bar(n // 10**6, -(-of // 10**6)))
        if not is_added:
            return rows_of("fetched", [done.row(name)], done.notes)
        with progress("opening slides", "slides") as on_slide:
            report = add_fetched(self.uri, asked, folder, on_slide)
        counts = [{"dataset": name, **r} for r in status.composition(self.open(), name)]
        return rows_of(f"{name}: annotations", counts, [*done.notes, *report.notes])

    def add(
        self,
        dataset: str,
        annotations: str | Path,
        *,
        slides: str | Path | None = None,
        format: str = "auto",
        mpp: float | Literal["file"] | None = None,
        slide_table: str | Path | None = None,
        domain: str | None = None,
        domain_from: str | None = None,
        case_from: str | None = None,
        case_from_name: str | None = None,
        label_from: str | None = None,
        column: Mapping[str, str] | None = None,
        columns: Sequence[str] | None = None,
        box: Box | None = None,
        unit: Unit | None = None,
        frame: Frame | None = None,
        label: Mapping[str, str] | None = None,
        positive: str | None = None,
        dry_run: bool = False,
    ) -> Rows:
        """Register annotations and slides; again, it changes nothing.

        annotations: a file, or a folder of files or patches. column: role to column, such as
        {"x": "centre_x"}; label: class of the file to label, such as {"1": "mitotic figure"}.
        Returns counts per domain, label and status; with dry_run the annotations as they would be.
        """
        from embedstore.add import AddOptions, add
        from embedstore.annotations.columns import Declared
        from embedstore.reading import status

        named = dict(column or {}) | ({} if label_from is None else {"label": label_from})
        options = AddOptions(
            format=format,
            slides=None if slides is None else place_of(slides),
            mpp=mpp,
            slide_table=None if slide_table is None else place_of(slide_table),
            domain=domain,
            domain_from=domain_from,
            case_from=case_from,
            labels=dict(label or {}),
            positive=positive,
            declared=Declared(named, tuple(columns or ()), box, case_from_name),
            unit=unit,
            frame=frame,
            dry_run=dry_run,
        )
        with progress("opening slides", "slides") as on_slide:
            report = add(self.uri, dataset, place_of(annotations), options, on_slide)
        if dry_run:
            return rows_of(f"{dataset}: would be registered", report.annotations, report.notes)
        opened = self.open()
        notes = [*report.notes, *problem_notes(status.problems(opened, dataset))]
        counts = [{"dataset": dataset, **r} for r in status.composition(opened, dataset)]
        return rows_of(f"{dataset}: annotations", counts, notes)

    def ingest(
        self,
        dataset: str,
        model: str | Sequence[str],
        *,
        weights: Mapping[str, str] | None = None,
        as_: str | None = None,
        pooling: str | None = None,
        mean: RGB | None = None,
        std: RGB | None = None,
        patch_px: int = 224,
        mpp_out: float | Sequence[float] = 0.25,
        batch_size: int | None = None,
        workers: int | None = None,
        limit: int | None = None,
        patch_cache: bool = True,
        pool: Many = None,
        views: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        shard: str | None = None,
        engine: str = "local",
        ray_address: str | None = None,
        num_gpus: float | None = None,
    ) -> Rows:
        """Embed every annotation a model lacks; interrupted, the same call does the rest.

        model: registry name, timm:NAME or hf-hub:OWNER/NAME; of several each patch is read once.
        weights: model to path, hub or random; as_: store under another model name.
        Returns a row per model: there before, embedded now, not embedded.
        """
        from embedstore.ingest import IngestOptions, Shard
        from embedstore.models.registry import Variation

        options = IngestOptions(
            weights=dict(weights or {}),
            name=as_,
            variation=Variation(pooling, mean, std),
            views=views,
            patch_px=patch_px,
            mpp_out=several(mpp_out) or (0.25,),
            pools=many(pool) or (),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            workers=workers,
            limit=limit,
            patch_cache=patch_cache,
            shard=None if shard is None else Shard.parse(shard),
            cluster=cluster_of(engine, ray_address, num_gpus),
        )
        return _ingested(self.open(write=True), dataset, many(model) or [], options)

    def import_(
        self,
        dataset: str,
        file: str | Path,
        *,
        model: str,
        within: float | None = None,
        tile_px_l0: float | None = None,
    ) -> Rows:
        """Bring your own embeddings, .parquet, .npz or .h5; all of a file is checked first."""
        from embedstore.exchange import import_embeddings
        from embedstore.exchange.tiles import TileOptions
        from embedstore.files.at_hand import brought_in

        options = TileOptions(within_px=within, tile_px_l0=tile_px_l0)
        with brought_in(place_of(file)) as path, progress("importing", "") as bar:
            report = import_embeddings(self.open(write=True), dataset, model, path, options, bar)
        return rows_of(f"{dataset}: imported", [report.row()], report.said())


def _ingested(
    opened: "Tables", dataset: str, models: Sequence[str], options: "IngestOptions"
) -> Rows:
    from embedstore.ingest import Interrupted, ingest
    from embedstore.reading import status

    try:
        with progress("embedding", "embeddings") as bar:
            report = ingest(
                opened,
                dataset,
                models,
                options,
                lambda done, total, waited: bar(done, total, waited.words()),
            )
    except Interrupted:
        raise KeyboardInterrupt from None  # what is embedded is stored; the same call goes on
    notes = [*report.notes, *problem_notes(status.problems(opened, dataset))]
    rows = report.rows(with_views=options.views is not None)
    return rows_of(f"{dataset}: embeddings", rows, notes)
