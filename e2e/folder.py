"""The folder of a run, runs/RUN_ID in the store: what it is, how far it has come, what it learnt.

config.json comes first; model.safetensors is the best model so far; last.pt is all that training
needs to go on, removed when the run is recorded; curve.csv has a line an epoch. A file is either
whole or absent.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pyarrow import fs

from e2e.recipe import Recipe
from embedstore.errors import EmbedstoreError
from embedstore.files.objects import answering, filesystem, is_uri, partial_name, said
from embedstore.models.registry import ModelEntry

CONFIG, MODEL, LAST, CURVE = "config.json", "model.safetensors", "last.pt", "curve.csv"


@dataclass(frozen=True)
class Config:
    """What a run is: all that builds its model again, and the split it was trained on.

    pixels is the digest of the slide files that its patches were cut from; n_params and n_trained
    count numbers of the whole model and those that training changes.
    """

    run_id: str
    backbone: str
    weights: str
    weights_sha256: str | None
    weights_path: str | None
    entry: ModelEntry
    recipe: Recipe
    dataset: str
    pixels: str
    manifest_id: str
    fold: int
    fraction: float
    train_domain: str | None
    labels: list[str]
    n_params: int
    n_trained: int

    @classmethod
    def of_json(cls, text: bytes | str) -> "Config":
        """Return what `json.dumps(asdict(config))` was made of."""
        facts: dict[str, Any] = json.loads(text)
        mean, std = facts["entry"]["norm"]
        entry = ModelEntry(**{**facts["entry"], "norm": (tuple(mean), tuple(std))})
        return cls(**{**facts, "entry": entry, "recipe": Recipe(**facts["recipe"])})


@dataclass(frozen=True)
class Epoch:
    """One line of the curve. loss is the mean over the epoch's steps, augmented; NaN: not known."""

    epoch: int
    step: int
    lr: float
    loss: float
    val_loss: float
    val_auroc: float
    images_per_second: float
    seconds: float


def best_epoch(curve: Sequence[Epoch]) -> Epoch:
    """Return the epoch whose model is kept.

    That of the lowest validation loss, the first of equals; the last where no loss is known.
    """
    validated = [e for e in curve if not math.isnan(e.val_loss)]
    return min(validated, key=lambda e: e.val_loss) if validated else curve[-1]


def is_out_of_patience(curve: Sequence[Epoch], patience: int | None) -> bool:
    """Return whether `patience` epochs have passed since the best; never where it is None."""
    if patience is None or not curve:
        return False
    return len(curve) - best_epoch(curve).epoch >= patience


class RunFolder:
    """The files of one run, in a local store or one on s3://."""

    def __init__(self, store_uri: str, run_id: str) -> None:
        """Name the folder; the first file written makes it."""
        self.name = f"{store_uri.rstrip('/')}/runs/{run_id}"
        if is_uri(store_uri):
            self._fs, root = filesystem(store_uri)
        else:
            self._fs, root = fs.LocalFileSystem(), str(Path(store_uri).resolve())
        self._root = f"{root.rstrip('/')}/runs/{run_id}"

    def has(self, file: str) -> bool:
        """Return whether the folder has a file."""
        with answering(self.name):
            return bool(self._fs.get_file_info(f"{self._root}/{file}").type == fs.FileType.File)

    def clear(self) -> None:
        """Remove the folder with all its files."""
        with answering(self.name):
            if self._fs.get_file_info(self._root).type == fs.FileType.Directory:
                self._fs.delete_dir(self._root)

    def remove(self, file: str) -> None:
        """Remove a file if the folder has it."""
        if self.has(file):
            with answering(self.name):
                self._fs.delete_file(f"{self._root}/{file}")

    def _write(self, file: str, data: bytes) -> None:
        path = f"{self._root}/{file}"
        try:
            self._fs.create_dir(self._root, recursive=True)
            partial = partial_name(path)
            with self._fs.open_output_stream(partial) as out:
                out.write(data)
            self._fs.move(partial, path)
        except OSError as e:
            raise EmbedstoreError(
                f"{self.name}/{file} could not be written ({said(e)}); what was there stays: "
                "check its space and rights, then run again"
            ) from e

    def _read(self, file: str) -> bytes:
        try:
            with (
                answering(self.name),
                self._fs.open_input_stream(f"{self._root}/{file}") as source,
            ):
                return bytes(source.read())
        except FileNotFoundError as e:
            raise EmbedstoreError(
                f"{self.name} has no {file}; `e2e run` with --force trains the run again"
            ) from e

    def write_config(self, config: Config) -> None:
        """Write what the run is."""
        self._write(CONFIG, (json.dumps(asdict(config), indent=1) + "\n").encode())

    def config(self) -> Config:
        """Return what the run is; EmbedstoreError where nothing says so."""
        return Config.of_json(self._read(CONFIG))

    def write_model(self, state: Mapping[str, torch.Tensor]) -> None:
        """Write parameters and buffers: as bytes, so that training on does not change them."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        self._write(MODEL, safetensors.torch.save(tensors))

    def model(self) -> dict[str, torch.Tensor]:
        """Return what `write_model` wrote, on the CPU."""
        state: dict[str, torch.Tensor] = safetensors.torch.load(self._read(MODEL))
        return state

    def write_last(self, state: Mapping[str, Any]) -> None:
        """Write all that training needs to go on."""
        out = io.BytesIO()
        torch.save(dict(state), out)
        self._write(LAST, out.getvalue())

    def last(self) -> dict[str, Any] | None:
        """Return what `write_last` wrote, on the CPU; None where training has not begun."""
        if not self.has(LAST):
            return None
        data = io.BytesIO(self._read(LAST))
        state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
        return state

    def write_curve(self, curve: Sequence[Epoch]) -> None:
        """Write a line an epoch as CSV."""
        out = io.StringIO()
        writer = csv.DictWriter(out, [f.name for f in fields(Epoch)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(e) for e in curve)
        self._write(CURVE, out.getvalue().encode())
