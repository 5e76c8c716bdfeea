"""Every verb that writes, on a small store in the state it begins with."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.files.objects import download, upload, uris_below
from tests.making.commands import call_command
from tests.making.slides import make_tiny, write_csv, write_slide
from tests.making.stores import query_of

VIT, RESNET = "timm:test_vit", "timm:test_resnet"
EMBED = ("--weights", f"{VIT}=random", "--dtype", "float32", "--batch-size", "8", "--workers", "1")
AS_M = ("--model", VIT, "--as", "m", *EMBED)
TRAIN = (
    *("--backbone", RESNET, "--weights", "random", "--epochs", "2", "--min-steps", "2"),
    *("--fold", "0", "--patch-px", "64", "--workers", "1"),
)


@dataclass(frozen=True)
class Scene:
    """A command, the state of the store that it begins with, and what file or folder it writes."""

    name: str
    base: str
    words: tuple[object, ...]
    output: str | None = None


class Stage:
    """Slides, annotation files and stores at every state of a study, made once."""

    def __init__(self, folder: Path) -> None:
        """Make all in a folder. States: none, added, embedded, run."""
        self.folder = folder
        tiny = make_tiny(folder / "t", per_label=8)
        self.slides = tiny.slides
        rows: list[dict[str, Any]] = [
            {
                **r,
                "id": str(n),
                "vote_1": r["label"],
                "vote_2": tiny.rows[n - n % 5]["label"],
                "vote_3": tiny.rows[n - n % 3]["label"],
            }
            for n, r in enumerate(tiny.rows)
        ]
        self.rows = rows
        self.table = write_csv(folder / "cells.csv", rows)
        self.moved = write_csv(folder / "moved.csv", self._moved(rows))
        self.relabelled = write_csv(folder / "relabelled.csv", self._relabelled(rows))
        changed = self._relabelled(self._moved(rows))
        self.changed = write_csv(folder / "changed.csv", changed)
        self.other_slides = folder / "other"
        shutil.copytree(self.slides, self.other_slides)
        self._replace(self.other_slides / "b1.tiff")
        self.vectors = folder / "vectors.npz"
        self.manifest = folder / "manifest.csv"
        self.states: dict[str, Path] = {}
        self._make()

    @staticmethod
    def _moved(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the cells of a0 eight pixels to the right."""
        return [{**r, "x": float(r["x"]) + 8 * (r["slide"] == "a0.tiff")} for r in rows]

    @staticmethod
    def _relabelled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return every third cell of a1 with the other label, and a1 in another domain."""
        labels = [rows[0]["label"], rows[1]["label"]]
        changed = []
        for n, row in enumerate(rows):
            r = dict(row)
            if r["slide"] == "a1.tiff":
                r["domain"] = "c"
                r["label"] = labels[1 - labels.index(r["label"])] if n % 3 == 0 else r["label"]
            changed.append(r)
        return changed

    @staticmethod
    def _replace(path: Path) -> None:
        import numpy as np

        pixels = np.random.default_rng(99).integers(100, 250, (700, 900, 3), dtype=np.uint8)
        write_slide(path, pixels)

    def add(self, table: Path | None = None, slides: Path | None = None) -> tuple[object, ...]:
        """Return the command that registers the dataset d, from these files or the usual ones."""
        return (
            *("embedstore", "add", "d", "--annotations", table or self.table),
            *("--slides", slides or self.slides, "--column", "vote=vote_*"),
        )

    def _make(self) -> None:
        steps: dict[str, list[tuple[object, ...]]] = {
            "added": [self.add()],
            "embedded": [
                ("embedstore", "ingest", "d", *AS_M),
                ("embedstore", "export", "d", "--model", "m", "--output", self.vectors),
                ("embedstore", "import", "d", "--model", "n", self.vectors),
            ],
            "run": [
                ("probes", "run", "d", "--fold", "0", "--fold", "1"),
                ("probes", "run", "d", "--fold", "0", "--group-by", "slide", "--fold", "1"),
            ],
        }
        store = self.folder / "making"
        for state, commands in steps.items():
            for words in commands:
                done = call_command(*words, "--store", store)
                assert done.code == 0, done.err
            self.states[state] = Path(shutil.copytree(store, self.folder / state))
        sql = "select manifest_id from splits where group_by = 'slide' limit 1"
        (row,) = query_of(str(store), sql)
        done = call_command(
            "probes", "manifest", "export", row["manifest_id"], self.manifest, "--store", store
        )
        assert done.code == 0, done.err
        text = self.manifest.read_text().splitlines()
        self.manifest.write_text("\n".join(text[:1] + text[1:][::-1]) + "\n")

    def verbs(self) -> dict[str, tuple[object, ...]]:
        """Return the verbs that are tried beside each other, on a store of the state run."""
        return {
            "add": self.add(),
            "ingest": ("embedstore", "ingest", "d", *AS_M),
            "import": ("embedstore", "import", "d", "--model", "n", self.vectors),
            "split": ("probes", "split", "d", "--seed", "7"),
            "run": ("probes", "run", "d", "--fold", "0", "--fold", "1", "--force"),
            "compare": ("probes", "compare", "d", "--a", "uni:m", "--b", "uni:n"),
            "e2e": ("e2e", "run", "d", *TRAIN),
            "remove": ("embedstore", "remove", "d", "--model", "n", "--yes"),
            "add moved": self.add(self.moved),
            "add relabelled": self.add(self.relabelled),
            "add other slides": self.add(None, self.other_slides),
        }

    def settled(self) -> list[tuple[object, ...]]:
        """Return the commands after which a store shows one and the same, whatever went before."""
        return [self.verbs()[v] for v in ("add", "ingest", "import", "split", "run", "compare")]

    def scenes(self) -> Iterator[Scene]:
        """Yield every verb that writes to a store or a file."""
        yield Scene("add", "none", self.add())
        yield Scene("add again", "run", self.add(self.changed, self.other_slides))
        yield Scene("ingest", "added", ("embedstore", "ingest", "d", *AS_M))
        yield Scene(
            "ingest of views", "embedded", ("embedstore", "ingest", "d", *AS_M, "--views", "d4")
        )
        yield Scene(
            "import", "embedded", ("embedstore", "import", "d", "--model", "o", self.vectors)
        )
        yield Scene("split", "embedded", ("probes", "split", "d"))
        yield Scene(
            "manifest import", "embedded", ("probes", "manifest", "import", "d", self.manifest)
        )
        yield Scene("run", "embedded", ("probes", "run", "d", "--fold", "0", "--fold", "1"))
        yield Scene(
            "run of knn", "embedded", ("probes", "run", "d", "--method", "knn", "--fold", "0")
        )
        yield Scene("compare", "run", ("probes", "compare", "d", "--a", "uni:m", "--b", "uni:n"))
        yield Scene("gap", "embedded", ("probes", "gap", "d", "--model", "m"))
        yield Scene("robustness", "embedded", ("probes", "robustness", "d", "--by", "domain"))
        yield Scene("likeness", "embedded", ("probes", "likeness", "d"))
        yield Scene("shots", "embedded", ("probes", "shots", "d", "--model", "m"))
        yield Scene("fusion", "embedded", ("probes", "fusion", "d"))
        yield Scene("raters", "run", ("probes", "raters", "d"))
        yield Scene("rescore", "run", ("probes", "rescore", "d"))
        yield Scene("copies", "embedded", ("probes", "copies", "d"))
        yield Scene("remove", "run", ("embedstore", "remove", "d", "--model", "n", "--yes"))
        yield Scene("remove all", "run", ("embedstore", "remove", "d", "--yes"))
        yield Scene("doctor", "run", ("embedstore", "doctor", "--mend"))
        yield Scene("e2e run", "added", ("e2e", "run", "d", *TRAIN))
        yield Scene(
            "doubtful",
            "embedded",
            ("probes", "doubtful", "d", "--overwrite", "--output", "{out}/doubtful.csv"),
            "doubtful.csv",
        )
        yield Scene(
            "export",
            "embedded",
            ("embedstore", "export", "d", "--model", "m", "--overwrite", "--output", "{out}/m.npz"),
            "m.npz",
        )
        yield Scene(
            "sql",
            "run",
            (
                "embedstore",
                "sql",
                "from predictions order by all",
                "--overwrite",
                "--output",
                "{out}/p.csv",
            ),
            "p.csv",
        )
        yield Scene("report", "run", ("probes", "report", "d", "--output", "{out}/page"), "page")

    def begin(self, scene: Scene, where: str) -> None:
        """Put the store of a scene's state at a place, a folder or s3://BUCKET/NAME."""
        if scene.base == "none":
            return
        if "://" not in where:
            shutil.copytree(self.states[scene.base], where)
            return
        for file in sorted(self.states[scene.base].rglob("*")):
            if file.is_file() and file.name != "in-use.lock":
                upload(file, f"{where}/{file.relative_to(self.states[scene.base]).as_posix()}")


def fetched(where: str, folder: Path) -> Path:
    """Return a store as a local folder, brought in if it is on S3."""
    if "://" not in where:
        return Path(where)
    shutil.rmtree(folder, ignore_errors=True)
    for uri in uris_below(where):
        file = folder / uri.removeprefix(f"{where}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        download(uri, file)
    return folder
