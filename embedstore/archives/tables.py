"""Tables of patches that a dataset does not come with, made of what it does come with."""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from embedstore.errors import EmbedstoreError
from embedstore.files.output import write_whole

PATCHES = "patches.csv"
"""The table made: path, label, and what else is known of a patch."""

Rows = Iterator[dict[str, str]]


def write_table(name: str, folder: Path) -> None:
    """Write FOLDER/patches.csv for a dataset of `TABLES`; EmbedstoreError where nothing fits."""
    rows = list(TABLES[name](folder))
    if not rows:
        raise EmbedstoreError(
            f"{folder} has no patches that its table names; the archive may have changed"
        )
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / PATCHES, lambda sink: sink.write(out.getvalue().encode()))


def _read(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        yield from csv.DictReader(stream)


def _ami_br(folder: Path) -> Rows:
    """Yield the patches there are: of which slide, each expert's vote, the majority as label."""
    for row in _read(folder / "AMI-BR.csv"):
        label = "atypical" if row["majority_atypical"] == "True" else "normal"
        path = f"patches/{label}/{row['dataset']}_{row['uid']}.png"
        if (folder / path).is_file():
            votes = {
                f"expert{k}": "atypical" if row[f"expert{k}_atypical"] == "True" else "normal"
                for k in (1, 2, 3)
            }
            slide = f"{row['dataset']}/{row['slide']}"
            yield {
                "path": path,
                "label": label,
                "slide": slide,
                "case": slide,
                "domain": row["dataset"],
                "id": f"{row['dataset']}_{row['uid']}",
                **votes,
            }


def _midog2025(folder: Path) -> Rows:
    """Yield the patches there are, with all that the organisers' table says of each."""
    (table,) = _one(folder, "*Atypical_Classification*.csv")
    images = {p.name: p.relative_to(folder).as_posix() for p in folder.rglob("*.png")}
    for row in _read(table):
        name = row.pop("image_id")
        name = name if name.endswith(".png") else f"{name}.png"
        if name in images:
            yield {"path": images[name], "label": row.pop("majority"), "id": name, **row}


def _one(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.rglob(pattern))
    if len(found) != 1:
        raise EmbedstoreError(f"{folder} has {len(found)} files {pattern}, where one is expected")
    return found


TABLES: dict[str, Callable[[Path], Rows]] = {"ami-br": _ami_br, "midog2025-t2": _midog2025}
"""Tables by dataset. Another one is a function and a row."""
