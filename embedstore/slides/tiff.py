"""What the directory of a TIFF file says of its pixels: enough to see what would be read wrongly.

OpenSlide and Pillow both hand on pixels of 16 bits or of five channels as if they were 8-bit RGB.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""By the TIFF type of a value: how struct reads it. Texts and fractions are not asked for."""

BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, CHANNELS, EXTRA = 258, 259, 262, 274, 277, 338
_WANTED = (BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, CHANNELS, EXTRA)
UPRIGHT = 1
"""The orientation of a picture that is stored as it is looked at."""
_CMYK = 5
_ALPHA = (1, 2)

COMPRESSIONS = {
    6: "old-style JPEG",
    9: "JBIG",
    10: "JBIG",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI LogL",
    34677: "SGI LogL",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34925: "LZMA",
    34933: "PNG",
    34934: "JPEG XR",
    22610: "JPEG XR",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""By TIFF's number: compressions that not every reader knows."""


@dataclass(frozen=True)
class TiffHeader:
    """Tags of the first image of a file; what a file does not say has TIFF's own default."""

    bits: tuple[int, ...] = (1,)
    compression: int = 1
    photometric: int | None = None
    orientation: int = UPRIGHT
    channels: int = 1
    extra: tuple[int, ...] = ()

    @property
    def problem(self) -> str | None:
        """Why the pixels are not the 8-bit grey or RGB that a picture of tissue has, or None."""
        if max(self.bits) > 8:
            return f"its pixels have {max(self.bits)} bits a channel, not 8"
        colours = 4 if self.photometric == _CMYK else 3 if self.channels >= 3 else 1
        spare = self.channels - colours
        if spare > 1:
            return f"its pixels have {self.channels} channels, not the 3 of RGB"
        if spare == 1 and self.extra[:1] not in [(a,) for a in _ALPHA]:
            return f"its pixels have {self.channels} channels, and the last is no opacity"
        return None


Source = Path | bytes
"""An image as it is encoded: a file, or its bytes."""


def opened(source: Source) -> BinaryIO:
    """Return an encoded image to read from."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def read_header(source: Source) -> TiffHeader | None:
    """Return what a TIFF or BigTIFF file says of its first image; None for any other file.

    A damaged directory gives None as well: readers say what is wrong with it.
    """
    try:
        with opened(source) as f:
            tags = dict(_tags(f))
    except (OSError, struct.error, KeyError, ValueError, OverflowError):
        return None
    if not tags:
        return None
    usual = TiffHeader()
    return TiffHeader(
        tags.get(BITS, usual.bits),
        tags.get(COMPRESSION, (usual.compression,))[0],
        tags.get(PHOTOMETRIC, (None,))[0],
        tags.get(ORIENTATION, (usual.orientation,))[0],
        tags.get(CHANNELS, (usual.channels,))[0],
        tags.get(EXTRA, usual.extra),
    )


def _tags(f: BinaryIO) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the wanted tags of the first directory, each with its values; none if it is no TIFF."""
    head = f.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return
    (kind,) = struct.unpack(f"{order}H", head[2:4])
    if kind not in (42, 43):
        return
    is_big = kind == 43
    offset, count, entry, space = ("Q", "Q", 20, 8) if is_big else ("I", "H", 12, 4)
    (start,) = struct.unpack(f"{order}{offset}", head[8:16] if is_big else head[4:8])
    f.seek(start)
    (n,) = struct.unpack(order + count, f.read(struct.calcsize(count)))
    for k in range(min(n, 4096)):
        f.seek(start + struct.calcsize(count) + k * entry)
        raw = f.read(entry)
        tag, type_, length = struct.unpack(f"{order}HH{offset}", raw[: entry - space])
        if tag not in _WANTED or type_ not in _FORMATS or not 0 < length <= 64:
            continue
        form = f"{order}{length}{_FORMATS[type_]}"
        size = struct.calcsize(form)
        if size > space:
            f.seek(struct.unpack(order + offset, raw[entry - space :])[0])
            yield tag, struct.unpack(form, f.read(size))
        else:
            yield tag, struct.unpack(form, raw[entry - space : entry - space + size])
