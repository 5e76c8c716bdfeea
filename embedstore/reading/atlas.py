"""The boundary to embedding-atlas: rows with places on a map, as a page that shows them."""

import contextlib
import http.server
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embedstore.errors import EmbedstoreError
from embedstore.files.output import write_whole

PACKAGE = "embedding_atlas"
CELLS = Path("data", "dataset.parquet")
"""Where the page has its rows, which any other tool can read too."""


def check_atlas() -> None:
    """Raise EmbedstoreError where embedding-atlas is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise EmbedstoreError(
            "a page to explore needs the package embedding-atlas: "
            "pip install 'mitosis-embedstore[explore]'"
        )


def write_atlas(
    rows: pa.Table,
    folder: Path,
    *,
    key: str,
    places: tuple[str, str],
    picture: str | None,
    colour: str,
    hidden: Sequence[str] = (),
) -> None:
    """Write rows as a page of embedding-atlas: FOLDER/index.html, its script and its data.

    Args:
        rows: one a point.
        folder: made if it is not there.
        key: the column that names a row.
        places: the columns with x and y.
        picture: the column with images (JPEG or PNG, bytes), if any.
        colour: the column by which points are coloured at first.
        hidden: columns that get no chart of their own at first.
    """
    import embedding_atlas
    from embedding_atlas.data_source import DataSource
    from embedding_atlas.options import make_embedding_atlas_props

    x, y = places
    props = make_embedding_atlas_props(row_id=key, x=x, y=y, image=picture)
    charts = {
        "embedding": {"data": {"x": x, "y": y, "image": picture, "category": colour}},
        "exclude": list(hidden),
    }
    static = Path(embedding_atlas.__file__).parent / "static"
    metadata = {"props": {**props, "defaultChartsConfig": charts}}
    # Of no rows: it would hold all of them as one object in memory, and again as bytes.
    DataSource("embedstore", rows.slice(0, 0), metadata).export_to_folder(str(static), str(folder))
    write_whole(
        folder / CELLS,
        lambda sink: pq.write_table(rows, sink, compression="zstd", row_group_size=10_000),
    )


def serve(folder: Path, port: int, on_start: Callable[[str], None]) -> None:
    """Serve a folder on this machine until Ctrl-C, once its address has been told.

    Port 0: any that is free. EmbedstoreError where the port cannot be used.
    """
    handler = partial(_Quiet, directory=str(folder))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as e:
        raise EmbedstoreError(
            f"port {port} cannot be used ({e.strerror}); name another with --port, 0 for any free"
        ) from e
    with server, contextlib.suppress(KeyboardInterrupt):
        on_start(f"http://127.0.0.1:{server.server_address[1]}/")
        server.serve_forever()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that says nothing of each request."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
