"""Thumbnails of many annotations as JPEG, made by processes: about a second a thousand and core.

Unpacking, shrinking and writing a JPEG are many short steps under the interpreter's lock, which
threads would only pass around.
"""

import contextlib
import io
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.reading.pixels import Patches
from embedstore.slides.reading import usual_threads
from embedstore.store import Store
from embedstore.store.sql import connect

PX, QUALITY = 112, 80
"""Width of a thumbnail: half that of the usual patch."""

_CHUNK = 256
_PAYS = 2_000
"""From so many on processes are worth their start."""

_patches: dict[tuple[str, str], Patches] = {}
"""What a process has looked up, by store and dataset."""


def thumbnails(
    store: Store,
    dataset: str,
    ids: Sequence[str],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, bytes]:
    """Return the thumbnails of those annotations of a dataset that can be had, as JPEG, by id.

    Patches that are kept, files that are patches, and what slides show of the rest.
    """
    chunks = [ids[k : k + _CHUNK] for k in range(0, len(ids), _CHUNK)]
    made: dict[str, bytes] = {}
    on_progress(0, len(ids))
    n_cores = min(usual_threads(), 8)
    patches = Patches(store, connect(store), dataset)
    with contextlib.ExitStack() as stack:
        tasks: Iterable[dict[str, bytes]]
        if len(ids) < _PAYS or n_cores < 2:
            tasks = (_shrunk(patches, chunk) for chunk in chunks)
        else:
            context = multiprocessing.get_context("spawn")  # Lance does not survive a fork
            pool = stack.enter_context(ProcessPoolExecutor(n_cores, context))
            tasks = pool.map(_of, [store.uri] * len(chunks), [dataset] * len(chunks), chunks)
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for n, some in enumerate(tasks):
            made |= some
            on_progress(min((n + 1) * _CHUNK, len(ids)), len(ids))
    left = [i for i in ids if i not in made]
    fresh = patches.read_slides(left, PX)
    return made | {i: _jpeg(p) for i, p in fresh.items()}


def _of(uri: str, dataset: str, ids: Sequence[str]) -> dict[str, bytes]:
    """Do the work of a process, which looks up once what is kept: it serves this one call."""
    if (uri, dataset) not in _patches:
        store = Store.open(uri)
        _patches[uri, dataset] = Patches(store, connect(store), dataset)
    return _shrunk(_patches[uri, dataset], ids)


def _shrunk(patches: Patches, ids: Sequence[str]) -> dict[str, bytes]:
    return {i: _jpeg(p) for i, p in patches.read(ids, PX).items()}


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
