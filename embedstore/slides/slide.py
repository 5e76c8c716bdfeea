"""The boundary to OpenSlide: open a slide, say its size and mpp, read RGB regions."""

import hashlib
from pathlib import Path
from typing import Any

import openslide
from openslide.lowlevel import OpenSlideError
from PIL import Image

from embedstore.errors import SlideError

MPP_MIN, MPP_MAX = 0.05, 2.0
"""Plausible micrometres per level-0 pixel of a light microscope's slide."""


SLIDE_SUFFIXES = (
    ".svs",
    ".tif",
    ".tiff",
    ".ndpi",
    ".vms",
    ".vmu",
    ".scn",
    ".mrxs",
    ".bif",
    ".svslide",
    ".dcm",
    ".czi",
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".webp",
)
"""Endings of files that may be a slide, lower case: OpenSlide's formats and plain images."""

UNREADABLE = (
    OpenSlideError,
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
)
"""What OpenSlide and Pillow raise on files that are damaged, too large or no images."""


def is_plausible_mpp(mpp: float | None) -> bool:
    """Return whether mpp (micrometres per pixel) lies in the range of light microscopy."""
    return mpp is not None and MPP_MIN <= mpp <= MPP_MAX


class Slide:
    """An open slide; use as a context manager. Reading is safe from several threads.

    Attributes: width, height (level-0 pixels); mpp (micrometres per level-0 pixel, None unless the
    file states a plausible one); mpp_problem (why a stated mpp was not taken, or None);
    downsamples (level-0 pixels per pixel, per level).
    """

    def __init__(self, path: str | Path, *, decode: bool = True) -> None:
        """Open a file that OpenSlide or, failing that, Pillow reads; SlideError otherwise.

        decode=False only looks at a plain image's header: enough for its size, not for reading.
        """
        try:
            self._slide: Any = openslide.open_slide(path)
            if isinstance(self._slide, openslide.ImageSlide):
                self._slide.close()
                self._slide = _plain_image(path, decode)
        except FileNotFoundError as e:
            raise SlideError(f"no slide file at {path}") from e
        except UNREADABLE as e:
            raise SlideError(f"{path} cannot be read as a slide: {e}") from e
        self.path = str(path)
        self.width, self.height = map(int, self._slide.dimensions)
        self.downsamples = tuple(float(d) for d in self._slide.level_downsamples)
        self.mpp, self.mpp_problem = _stated_mpp(self._slide.properties)

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._slide.close()

    def read_region(self, x_l0: int, y_l0: int, level: int, width: int, height: int) -> Image.Image:
        """Return an RGB image (width x height px of `level`) whose corner is (x_l0, y_l0).

        Pixels beyond the slide are white. SlideError where the file cannot be decoded.
        """
        try:
            region = self._slide.read_region((x_l0, y_l0), level, (width, height))
        except UNREADABLE as e:
            raise SlideError(f"{self.path} cannot be read at ({x_l0}, {y_l0}): {e}") from e
        white = Image.new("RGB", region.size, (255, 255, 255))
        white.paste(region, mask=region.getchannel("A"))
        return white


def read_image(path: str | Path) -> Image.Image:
    """Return a whole image file in RGB, transparent pixels white; SlideError if unreadable."""
    try:
        with Slide(path) as image:
            return image.read_region(0, 0, 0, image.width, image.height)
    except MemoryError as e:
        raise SlideError(f"{path} is too large for one patch") from e


def _plain_image(path: str | Path, decode: bool) -> openslide.ImageSlide:
    with Image.open(path) as image:
        _check_mode(image)
        if not decode:
            return openslide.ImageSlide(path)
        image.load()  # now: Pillow decodes at the first read, which threads must not share
        return openslide.ImageSlide(image)


def _check_mode(image: Image.Image) -> None:
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise ValueError(f"its pixels are not 8-bit (mode {image.mode}); convert it to RGB")


def _stated_mpp(properties: Any) -> tuple[float | None, str | None]:
    """Return the file's own mpp and, where it states one that is not used, why not."""
    stated = [properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
    if None in stated:
        return None, None
    try:
        x, y = float(stated[0]), float(stated[1])
    except ValueError:
        return None, f"the file's mpp '{stated[0]}' is not a number"
    if not (is_plausible_mpp(x) and is_plausible_mpp(y)):
        return None, f"the file's mpp {x:g} is not between {MPP_MIN} and {MPP_MAX} um/px"
    if abs(x - y) > 0.05 * max(x, y):
        return None, f"the file's mpp differs by axis ({x:g} across, {y:g} down)"
    return (x + y) / 2, None


def probe(path: Path | None, fallback: tuple[float | None, str | None]) -> dict[str, Any]:
    """Return the slide columns that opening the file decides: size, mpp, status and problem.

    fallback is (mpp, its source), used where the file states no plausible mpp. status is ok,
    missing (no file yet), unreadable or no-mpp. fingerprint tells the file from another.
    """
    mpp, source = fallback
    row: dict[str, Any] = {"mpp": mpp, "mpp_source": source, "fingerprint": None}
    if path is None or not path.is_file():
        return row | {"status": "missing", "problem": "no slide file"}
    row["fingerprint"] = _fingerprint(path)
    try:
        with Slide(path, decode=False) as slide:
            size = {"width": slide.width, "height": slide.height}
            stated, mpp_problem = slide.mpp, slide.mpp_problem
    except SlideError as e:
        # The fallback is kept for when the file is mended.
        return row | {"status": "unreadable", "problem": str(e)}
    row |= size
    if stated:
        row |= {"mpp": stated, "mpp_source": "slide"}
    if row["mpp"] is None:
        why = mpp_problem or "the file states no mpp"
        problem = f"{why}: add again with --mpp X, or with a --slide-table that has a column mpp"
        return row | {"status": "no-mpp", "problem": problem}
    return row | {"status": "ok", "problem": mpp_problem}


def probe_patch(path: Path | None) -> dict[str, Any]:
    """Return the columns of `probe` for an image file that is one patch.

    Only the header is read, and a patch needs no mpp: it is NULL. status is ok, missing (no
    file yet) or unreadable.
    """
    row: dict[str, Any] = {"mpp": None, "mpp_source": None, "fingerprint": None}
    if path is None or not path.is_file():
        return row | {"status": "missing", "problem": "no patch file"}
    row["fingerprint"] = _fingerprint(path)
    try:
        with Image.open(path) as image:
            _check_mode(image)
            width, height = image.size
    except UNREADABLE as e:
        problem = f"{path} cannot be read as a patch: {e}"
        return row | {"status": "unreadable", "problem": problem}
    return row | {"width": width, "height": height, "status": "ok", "problem": None}


def _fingerprint(path: Path) -> str:
    """Return a digest of a file's length and its ends: enough to see that a slide was replaced."""
    n, ends = path.stat().st_size, 2**16
    with path.open("rb") as f:
        digest = hashlib.sha256(f"{n}|".encode() + f.read(ends))
        f.seek(max(n - ends, 0))
        digest.update(f.read(ends))
    return digest.hexdigest()[:16]
