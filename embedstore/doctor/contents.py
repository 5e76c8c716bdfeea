"""What lies in the files: tables that cannot be read, vectors, patches, digests, slides."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.doctor.finding import Finding
from embedstore.errors import EmbedstoreError
from embedstore.files.faults import in_words
from embedstore.files.objects import is_uri
from embedstore.files.output import write_whole
from embedstore.files.packed import SEPARATOR
from embedstore.slides.fingerprint import fingerprint
from embedstore.store import Store
from embedstore.store.layout import PATCHES, TABLES, model_table, views_table
from embedstore.store.patch_cache import decode
from embedstore.store.sql import fetch_rows

DIGESTS = "digests.json"
"""The file of a store that has the SHA-256 of each data file, as `doctor` found them first."""

_N_EXAMPLES = 3
_RESTORE = "restore a copy of the store: what the file held is not guessed"

OnRows = Callable[[int], None]


def unreadable(store: Store) -> list[Finding]:
    """Return the tables that cannot be opened, or are none of this tool's."""
    found = []
    known = {*TABLES, *map(model_table, store.models()), *map(views_table, store.viewed_models())}
    for name in sorted({*store.tables(), *TABLES}):
        if name not in known:
            says, advice = "a table that is none of this tool's", "move it to a place of its own"
        else:
            try:
                store.open_table(name).count_rows()
                continue
            except (EmbedstoreError, OSError, RuntimeError, ValueError) as e:
                said = str(e) if isinstance(e, EmbedstoreError) else in_words(e)
                says, advice = f"a table that cannot be opened: {said}", _RESTORE
        found.append(Finding("tables", name, 1, says, [name], advice))
    return found


def contents(store: Store, on_rows: OnRows) -> Iterator[Finding]:
    """Read every row of every table, and yield what is wrong with them."""
    for name in TABLES:
        if name != PATCHES:
            yield from _read(store, name, ["*"], lambda batch: (), "", "", on_rows)
    again = "deletes them; `embedstore ingest` (or import) makes them again"
    for name in [
        *map(model_table, store.models()),
        *map(views_table, store.viewed_models()),
    ]:
        says = "vectors that are missing or hold what is no finite number"
        yield from _read(store, name, ["vector"], _not_finite, says, again, on_rows)
    says, again = (
        "patches whose pixels cannot be unpacked",
        "deletes them; they are cut from slides again",
    )
    yield from _read(store, PATCHES, ["size_px", "pixels"], _not_unpacked, says, again, on_rows)


def _read(
    store: Store,
    name: str,
    columns: list[str],
    wrong: Callable[[Any], Any],
    says: str,
    advice: str,
    on_rows: OnRows,
) -> Iterator[Finding]:
    """Read a table; yield the rows of which `wrong` says so, by their place in a batch."""
    dataset = store.lance(name)
    key = dataset.schema.field(0).name
    wanted = None if columns == ["*"] else [key, *columns]
    keys: list[str] = []
    try:
        for batch in dataset.scanner(columns=wanted, batch_size=1024).to_batches():
            keys += [batch[key][int(n)].as_py() for n in wrong(batch)]
            on_rows(len(batch))
    except (OSError, RuntimeError, ValueError) as e:
        says, advice = f"rows that cannot be read: {in_words(e)}", _RESTORE
        yield Finding("values", name, 1, says, [name], advice)
        return
    if keys:
        delete = partial(store.delete, name, key, keys)
        yield Finding("values", name, len(keys), says, keys[:_N_EXAMPLES], advice, delete)


def _not_finite(batch: Any) -> Any:
    vectors = batch["vector"]
    wrong = vectors.is_null().to_numpy(zero_copy_only=False)
    width = vectors.type.list_size
    start = vectors.offset * width
    values = vectors.values.to_numpy(zero_copy_only=False)[start : start + len(vectors) * width]
    values = values.reshape(-1, width)
    return np.flatnonzero(wrong | ~np.isfinite(values).all(axis=1))


def _not_unpacked(batch: Any) -> list[int]:
    wrong = []
    for n, row in enumerate(batch.select(["size_px", "pixels"]).to_pylist()):
        try:
            if decode(row["pixels"], row["size_px"]).shape != (row["size_px"], row["size_px"], 3):
                wrong.append(n)
        except (EmbedstoreError, ValueError, OSError, TypeError):
            wrong.append(n)
    return wrong


def digests(store: Store) -> Iterator[Finding]:
    """Compare data files with what an earlier call recorded, and record what is new.

    Lance never changes a data file, and has no digests of its own; an object store has.
    """
    if is_uri(store.uri):
        return
    root = Path(store.uri)
    file = root / DIGESTS
    recorded: dict[str, str] = {}
    if file.is_file():
        try:
            recorded = json.loads(file.read_text())
        except ValueError:
            advice = "deletes it; the next `embedstore doctor` records digests anew"
            says = "a record of digests that cannot be read"
            yield Finding("digests", DIGESTS, 1, says, [DIGESTS], advice, file.unlink)
            return
    now = {p.relative_to(root).as_posix(): p for p in sorted(root.glob("*.lance/data/*"))}
    found = {name: _sha256(p) for name, p in now.items()}
    changed = [n for n, digest in found.items() if recorded.get(n, digest) != digest]
    if changed:
        yield Finding(
            "digests",
            changed[0].partition(".lance/")[0],
            len(changed),
            "data files that are not what they were: damaged, or changed by hand",
            changed[:_N_EXAMPLES],
            _RESTORE,
        )
    kept = {n: recorded.get(n, digest) for n, digest in found.items()}
    text = json.dumps(kept, indent=1, sort_keys=True)
    with contextlib.suppress(EmbedstoreError):  # a store that may only be read
        write_whole(file, lambda sink: sink.write(text.encode()))


def leftovers(store: Store) -> Iterator[Finding]:
    """Find data files that no version of a table names: of writes that were killed."""
    if is_uri(store.uri):
        return
    for folder in sorted(Path(store.uri).glob("*.lance")):
        name = folder.name.removesuffix(".lance")
        dataset = store.open_table(name).to_lance()
        named = set()
        for version in dataset.versions():
            for fragment in dataset.checkout_version(version["version"]).get_fragments():
                named |= {Path(f.path).name for f in fragment.data_files()}
        lost = [p for p in (folder / "data").glob("*") if p.name not in named]
        if lost:
            size = sum(p.stat().st_size for p in lost)
            yield Finding(
                "space",
                name,
                len(lost),
                f"files of writes that did not come to their end ({size / 1e6:,.1f} MB)",
                [p.name for p in lost[:_N_EXAMPLES]],
                "deletes them",
                partial(_delete_files, lost),
            )


def _delete_files(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def slides(store: Store, con: Any) -> Iterator[Finding]:
    """Find slides whose local file is another one than was added, or gone."""
    sql = (
        "select slide_id, path, fingerprint from _slides where path is not null and "
        "fingerprint is not null and status = 'ok' order by 1"
    )
    gone, changed = [], []
    for row in fetch_rows(con, sql):
        if is_uri(row["path"]) or SEPARATOR in row["path"]:
            continue
        try:
            if fingerprint(row["path"]) != row["fingerprint"]:
                changed.append(row["slide_id"])
        except OSError:
            gone.append(row["slide_id"])
    for ids, says in (
        (changed, "slides whose file has changed since it was added"),
        (gone, "slides whose file is not where it was, or cannot be read"),
    ):
        if ids:
            advice = "`embedstore add --slides DIR` takes the files as they are now"
            yield Finding("stale", "slides", len(ids), says, ids[:_N_EXAMPLES], advice)
