"""The boundary to OpenSlide: open a slide, say its size and mpp, read RGB regions."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openslide
from openslide.lowlevel import OpenSlideError
from PIL import Image, ImageOps

from embedstore.errors import SlideError
from embedstore.files.at_hand import at_hand, is_there
from embedstore.files.objects import Place
from embedstore.slides.fingerprint import fingerprint
from embedstore.slides.pixels import check_png, check_tiff, why_unread
from embedstore.slides.tiff import ORIENTATION, UPRIGHT, Source

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
    RuntimeError,
    Image.DecompressionBombError,
)
"""What OpenSlide, Pillow and h5py raise on files that are damaged, too large or no images."""


def is_plausible_mpp(mpp: float | None) -> bool:
    """Return whether mpp (micrometres per pixel) lies in the range of light microscopy."""
    return mpp is not None and MPP_MIN <= mpp <= MPP_MAX


class Slide:
    """An open slide; use as a context manager. Reading is safe from several threads.

    Attributes: width, height (level-0 pixels); mpp (micrometres per level-0 pixel, None unless the
    file states a plausible one); mpp_problem (why a stated mpp was not taken, or None);
    downsamples (level-0 pixels per pixel, per level; infinite where the file leaves it in doubt);
    bounds (x, y, width, height of the scanned area in level-0 pixels where the file states one that
    is not the whole, else None).
    A picture whose tag says that it is stored turned is read as it is looked at.
    """

    def __init__(self, path: Place, *, decode: bool = True) -> None:
        """Open a file that OpenSlide or, failing that, Pillow reads; SlideError otherwise.

        One of an object store is fetched, and stays at hand while it is open. decode=False only
        looks at a plain image's header: enough for its size, not for reading.
        """
        with ExitStack() as held:
            self._slide, size = _open(path, decode, held)
            self._held = held.pop_all()
        self.path = str(path)
        self.width, self.height = map(int, size)
        self.downsamples = true_downsamples(
            self._slide.level_dimensions, self._slide.level_downsamples, self._tiles()
        )
        self.mpp, self.mpp_problem = _stated_mpp(self._slide.properties)
        self.bounds = _stated_bounds(self._slide.properties, self.width, self.height)

    def _tiles(self) -> list[tuple[int, int] | None]:
        """Return the size of a tile per level, None where the file has none."""
        stated = [
            [self._slide.properties.get(f"openslide.level[{n}].tile-{side}") for side in _SIDES]
            for n in range(self._slide.level_count)
        ]
        return [None if None in s else (int(str(s[0])), int(str(s[1]))) for s in stated]

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._slide.close()
        self._held.close()

    def read_region(self, x_l0: int, y_l0: int, level: int, width: int, height: int) -> Image.Image:
        """Return an RGB image (width x height px of `level`) whose corner is (x_l0, y_l0).

        Pixels beyond the slide are white. SlideError where the file cannot be decoded.
        """
        try:
            region: Image.Image = self._slide.read_region((x_l0, y_l0), level, (width, height))
        except UNREADABLE as e:
            raise SlideError(f"{self.path} cannot be read at ({x_l0}, {y_l0}): {e}") from e
        opacity = region.getchannel("A")
        if opacity.getextrema() == (255, 255):
            return region.convert("RGB")
        white = Image.new("RGB", region.size, (255, 255, 255))
        white.paste(region, mask=opacity)
        return white


def _open(path: Place, decode: bool, held: ExitStack) -> tuple[Any, tuple[int, int]]:
    """Return an open slide and its size; what it needs to stay open is entered into `held`."""
    try:
        local = held.enter_context(at_hand(path))
    except FileNotFoundError as e:
        raise SlideError(f"no slide file at {path}") from e
    try:
        slide = openslide.open_slide(local)
        if isinstance(slide, openslide.ImageSlide):
            slide.close()
            return _plain_image(local, decode)
        check_tiff(local, must_be_upright=True)
        return slide, slide.dimensions
    except FileNotFoundError as e:
        raise SlideError(f"no slide file at {path}") from e
    except UNREADABLE as e:
        raise SlideError(f"{path} cannot be read as a slide: {why_unread(local, e)}") from e


_SIDES = ("width", "height")


def true_downsamples(
    sizes: Sequence[tuple[int, int]],
    stated: Sequence[float],
    tiles: Sequence[tuple[int, int] | None],
) -> tuple[float, ...]:
    """Return each level's level-0 pixels per pixel, infinity where its size does not say it.

    OpenSlide divides the sizes, and files may fill their last tiles up with nothing: a level of
    1000 x 750 is then one of 1024 x 768. A level is in doubt if its sides disagree, or if it is no
    whole part of level 0 and its sides are whole tiles of one that is.
    """
    (width, height), result = sizes[0], [float(stated[0])]
    for (w, h), down, tile in zip(sizes[1:], stated[1:], tiles[1:], strict=True):
        whole = round(width / w)
        is_whole = all(abs(n * whole - of) <= whole for n, of in ((w, width), (h, height)))
        agree = abs(width / w - height / h) * min(w, h) <= 2 * max(width / w, height / h)
        filled = tile is not None and any(
            w == _filled(width, k, tile[0]) and h == _filled(height, k, tile[1])
            for k in range(2, 2 * max(width, height))
            if k <= 256
        )
        in_doubt = not is_whole and (filled or not agree)
        result.append(math.inf if in_doubt else float(down))
    return tuple(result)


def _filled(length: int, down: int, tile: int) -> int:
    """Return how long a level is whose last tile is filled up."""
    return math.ceil(math.ceil(length / down) / tile) * tile


def _plain_image(path: str | Path, decode: bool) -> tuple[openslide.ImageSlide, tuple[int, int]]:
    """Return a picture that Pillow reads, and its size as it is looked at."""
    with Image.open(path) as image:
        check_mode(image, Path(path))
        size = upright_size(image)
        if not decode:
            return openslide.ImageSlide(path), size
        image.load()  # now: Pillow decodes at the first read, which threads must not share
        return openslide.ImageSlide(ImageOps.exif_transpose(image)), size


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height once the picture is turned as its tag says."""
    is_on_its_side = image.getexif().get(ORIENTATION, UPRIGHT) in (5, 6, 7, 8)
    return (image.height, image.width) if is_on_its_side else (image.width, image.height)


def check_mode(image: Image.Image, source: Source) -> None:
    """Raise ValueError for pixels that would be read as what they are not; source is the file."""
    check_png(source)
    check_tiff(source)
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


def _stated_bounds(properties: Any, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return the scanned area that a file states of a slide with an empty border, if it does."""
    stated = [properties.get(f"openslide.bounds-{k}") for k in ("x", "y", "width", "height")]
    try:
        x, y = int(stated[0] or 0), int(stated[1] or 0)
        w = min(int(stated[2] or width), width - x)
        h = min(int(stated[3] or height), height - y)
    except ValueError:
        return None
    is_area = x >= 0 and y >= 0 and w > 0 and h > 0
    return (x, y, w, h) if is_area and (x, y, w, h) != (0, 0, width, height) else None


FROM_FILE = "slide"
"""The source of an mpp that the slide's own file states."""

AGAINST = "the file itself states"
"""How the problem of a slide begins whose file states another mpp than the one given."""


def probe(
    path: Place | None,
    given: tuple[float | None, str | None],
    *,
    wins: bool = False,
) -> dict[str, Any]:
    """Return the slide columns that opening the file decides: size, mpp, status and problem.

    given is (mpp, its source): used where the file states no plausible mpp, and in place of what it
    states if it `wins`: then problem has both where they differ. status is ok, missing (no file
    yet), unreadable or no-mpp. fingerprint tells the file from another.
    """
    mpp, source = given
    row: dict[str, Any] = {"mpp": mpp, "mpp_source": source, "fingerprint": None, "bounds": None}
    if path is None or not is_there(path):
        return row | {"status": "missing", "problem": "no slide file"}
    row["fingerprint"] = fingerprint(path)
    try:
        with Slide(path, decode=False) as slide:
            size = {"width": slide.width, "height": slide.height, "bounds": slide.bounds}
            stated, mpp_problem = slide.mpp, slide.mpp_problem
    except SlideError as e:
        # What was given is kept for when the file is mended.
        return row | {"status": "unreadable", "problem": str(e)}
    row |= size
    if stated and not (wins and mpp):
        row |= {"mpp": stated, "mpp_source": FROM_FILE}
    elif stated and mpp:
        differs = abs(stated - mpp) > 0.005 * mpp
        against = f"{AGAINST} {stated:g} um/px, and {mpp:g} was taken ({source})"
        mpp_problem = against if differs else None
    if row["mpp"] is None:
        why = mpp_problem or "the file states no mpp"
        problem = (
            f"{why}: add again with a --slide-table that has a column mpp, or with --mpp X, "
            "which is then taken for every slide"
        )
        return row | {"status": "no-mpp", "problem": problem}
    return row | {"status": "ok", "problem": mpp_problem}
