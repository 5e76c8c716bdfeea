"""Views of a patch that lie beside its centre: how much of a score is where cells were marked."""

import hashlib
import math

from embedstore.errors import UsageError

JITTER = ("j1", "j2", "j3", "j4")
"""The views that are shifted, each annotation by shifts of its own."""
JITTER_UM = 4.0
"""How far a view is shifted at most, in micrometres."""


def shift_um(annotation_id: str, view: str) -> tuple[float, float]:
    """Return how far right and down a view of JITTER is shifted, uniform in a disc, in um.

    The same for an annotation on every machine and in every field of view.
    """
    digest = hashlib.sha256(f"{annotation_id}|{view}".encode()).digest()
    a, b = (int.from_bytes(digest[k : k + 8], "big") / 2**64 for k in (0, 8))
    far, angle = JITTER_UM * math.sqrt(a), 2 * math.pi * b
    return far * math.cos(angle), far * math.sin(angle)


def check_room(margin_px: int, mpp_out: float, size_px: int) -> None:
    """Raise UsageError where a crop with this margin around the patch does not hold its views."""
    if margin_px * mpp_out < JITTER_UM:
        raise UsageError(
            f"--views jitter shifts patches by up to {JITTER_UM:g} um, and around one of "
            f"{size_px} px at {mpp_out:g} um/px only {margin_px * mpp_out:.3g} um are read; give a "
            "larger --patch-px"
        )
