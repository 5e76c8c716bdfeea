"""A frozen network at work: patches in, embeddings out, in a dtype whose error is known."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.models.checkpoints import Weights
from embedstore.models.features import pool_each
from embedstore.models.pools import OWN
from embedstore.models.registry import PARITY, ModelEntry

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

SAMPLE_PARITY = 1 - (1 - PARITY) / 3
"""What the lowest of a few sampled rows must reach, since the lowest of all lies further off."""


def choose_dtype(dtype: str, device: torch.device, on_cuda: str = "float16") -> str:
    """Return dtype; for "auto" on_cuda there, bfloat16 on CPUs fast at it, else float32."""
    if dtype != "auto":
        if dtype not in DTYPES:
            raise UsageError(f"unknown dtype '{dtype}'; allowed: auto, {', '.join(DTYPES)}")
        return dtype
    if device.type == "cuda":
        return on_cuda
    # With AMX bfloat16 was 4 times as fast as float32, with AVX512-BF16 alone 0.7 times.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return "bfloat16" if device.type == "cpu" and has_amx else "float32"


def choose_device(device: str) -> torch.device:
    """Return the torch device for "auto" (cuda where there is one, else cpu) or for its name."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as e:
        raise UsageError(f"device '{device}' cannot be used here ({e}); try cpu") from e
    return chosen


def usual_batch(device: torch.device) -> int:
    """Return how many patches a pass takes where nothing else is asked for: by a GPU's free memory.

    What does not fit is halved: this is only where that begins.
    """
    if device.type != "cuda":
        return 32
    free, _ = torch.cuda.mem_get_info(device)
    return int(min(256, max(16, 2 ** int(free / 2**30).bit_length() * 8)))


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether a device, or the machine itself, had no memory left for a pass."""
    said = str(error)  # of a GPU's allocator, of Apple's, of the CPU's
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in said for words in ("out of memory", "allocate memory")
    )


@dataclass
class Embedder:
    """A frozen model ready to embed. `name` is the key under which its embeddings are stored.

    parity is the lowest cosine to float32 seen in a sample, 1 in float32, None if not measured;
    notes say what of the checkpoint was taken off or left out; most is how many patches a pass
    takes, once more of them did not fit into memory.
    """

    name: str
    entry: ModelEntry
    weights: Weights
    dtype: str
    device: torch.device
    network: Any
    parity: float | None = None
    notes: tuple[str, ...] = ()
    most: int | None = None

    @property
    def is_on_gpu(self) -> bool:
        """Whether its passes leave the processor free."""
        return self.device.type != "cpu"

    def check(self, patch_px: int, pools: Sequence[str] = (OWN,), mpp_out: float = 1) -> list[int]:
        """Return how many numbers each pool gives for a patch of patch_px pixels.

        Raises EmbedstoreError unless the model embeds it here.
        """
        patch = np.full((1, patch_px, patch_px, 3), 200, dtype=np.uint8)
        try:
            return [v.shape[1] for v in self.embed_pools(patch, pools, mpp_out)]
        except (RuntimeError, AssertionError, ValueError) as e:
            raise EmbedstoreError(
                f"{self.name} cannot embed patches of {patch_px} px on {self.device} "
                f"({str(e).splitlines()[0] if str(e) else type(e).__name__}); "
                "try another --patch-px or --device"
            ) from e

    def settle_dtype(
        self,
        sample: Callable[[], NDArray[np.uint8]],
        *,
        may_change: bool,
        pools: Sequence[str] = (OWN,),
        mpp_out: float = 1,
    ) -> None:
        """Measure `parity`, the lowest of all pools, on sample(): patches, uint8 (n, h, w, 3).

        No patch leaves it unknown; in float32 none is asked for. Where it is below SAMPLE_PARITY
        and `may_change`, the model goes on in float32.
        """
        if self.dtype == "float32":
            self.parity = 1.0
            return
        patches = sample()
        if not len(patches):
            return
        low, chosen = None, self.dtype
        with contextlib.suppress(EmbedstoreError) if may_change else contextlib.nullcontext():
            low = self.embed_pools(patches, pools, mpp_out)
        self.dtype = "float32"
        full = self.embed_pools(patches, pools, mpp_out)
        self.dtype, self.parity = chosen, None
        if low is not None:
            self.parity = min(map(_lowest_cosine, low, full))
        if may_change and (self.parity is None or self.parity < SAMPLE_PARITY):
            self.dtype, self.parity = "float32", 1.0

    def embed(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the model's own embeddings, float32 (n, dim), of uint8 (n, height, width, 3)."""
        (vectors,) = self.embed_pools(patches, (OWN,))
        if vectors.shape[1] != self.entry.dim:
            raise EmbedstoreError(
                f"{self.name} gave {vectors.shape[1:]} numbers a patch, not {self.entry.dim}"
            )
        return vectors

    def embed_pools(
        self, patches: NDArray[np.uint8], pools: Sequence[str], mpp_out: float = 1
    ) -> list[NDArray[np.float32]]:
        """Return embeddings, float32 (n, dim), a pool, of RGB patches, uint8 (n, height, width, 3).

        One pass of the network, or several halves where memory asks for it; mpp_out is the
        patches', in um per pixel. A row does not depend on the others of its batch beyond rounding.
        EmbedstoreError where a value is not finite, or one patch does not fit into memory.
        """
        while True:
            n_each = self.most or len(patches)
            parts = [patches[k : k + n_each] for k in range(0, len(patches), n_each)]
            try:
                embedded = [self._pass(part, pools, mpp_out) for part in parts]
                return [np.concatenate(of_pool) for of_pool in zip(*embedded, strict=True)]
            except RuntimeError as e:
                if not _is_out_of_memory(e):
                    raise
                largest = max(map(len, parts))
                if largest == 1:
                    raise EmbedstoreError(
                        f"{self.name} ran out of memory with one patch; what is stored stays, go "
                        "on with a smaller --patch-px, on another --device, or with more memory"
                    ) from e
            # Not before: the error holds what did not fit.
            self.most = largest // 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def _pass(
        self, patches: NDArray[np.uint8], pools: Sequence[str], mpp_out: float
    ) -> list[NDArray[np.float32]]:
        if not patches.flags.writeable:
            patches = patches.copy()  # torch warns of memory that it could write to
        x = torch.from_numpy(patches).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in self.entry.norm)
        x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, DTYPES[self.dtype], enabled=self.dtype != "float32"):
            um = patches.shape[2] * mpp_out
            pooled = pool_each(self.network, self.entry.pooling, x, pools, um)
        vectors: list[NDArray[np.float32]] = [v.float().cpu().numpy() for v in pooled]
        if any(v.ndim != 2 for v in vectors):
            shapes = ", ".join(str(v.shape[1:]) for v in vectors)
            raise EmbedstoreError(f"{self.name} gave {shapes} numbers a patch, not one row each")
        if not all(np.isfinite(v).all() for v in vectors):
            raise EmbedstoreError(
                f"{self.name} gave embeddings that are not finite in {self.dtype}; "
                "try --dtype float32"
            )
        return vectors


def _lowest_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    # A row of zeros in both is the same row.
    cosines = np.divide((a * b).sum(axis=1), norms, out=np.ones(len(a)), where=norms > 0)
    return float(cosines.min())
