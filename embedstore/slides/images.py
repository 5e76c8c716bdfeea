"""Images that are one patch each: files of their own, or packed many to a file."""

import contextlib
import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from embedstore.errors import SlideError
from embedstore.files.at_hand import at_hand, named
from embedstore.files.objects import Place, download, is_uri, name_of
from embedstore.files.packed import SEPARATOR, Packed, exists, locate, read_packed
from embedstore.slides.fingerprint import CHANGED, check_fingerprint, fingerprint
from embedstore.slides.pixels import why_unread
from embedstore.slides.slide import UNREADABLE, Slide, check_mode, upright_size


def read_image(place: Place, expected: str | None = None) -> Image.Image:
    """Return a whole image in RGB, transparent pixels white; SlideError if unreadable.

    expected is the fingerprint that it must have; None leaves that open. EmbedstoreError where an
    object store does not answer.
    """
    try:
        with patch_at_hand(place) as path, named(path, place):
            return _read_local(path, expected)
    except FileNotFoundError as e:
        raise SlideError(f"no file at {place}") from e


def _read_local(path: Path, expected: str | None) -> Image.Image:
    packed = locate(path)
    try:
        if packed is not None:
            decoded = _decoded(packed)
            if expected is not None and _fingerprint(decoded) != expected:
                raise SlideError(f"{path} {CHANGED}")
            return _over_white(decoded)
        with Slide(path) as image:
            check_fingerprint(path, expected)
            return image.read_region(0, 0, 0, image.width, image.height)
    except MemoryError as e:
        raise SlideError(f"{path} is too large for one patch") from e
    except FileNotFoundError as e:
        raise SlideError(f"no file at {path}") from e
    except UNREADABLE as e:
        raise SlideError(f"{path} cannot be read as a patch: {e}") from e


def probe_patch(place: Place | None) -> dict[str, Any]:
    """Return the columns of `slide.probe` for an image that is one patch.

    Of a file only the header is read, and a patch needs no mpp: it is NULL. status is ok, missing
    (no file yet) or unreadable.
    """
    row: dict[str, Any] = {"mpp": None, "mpp_source": None, "fingerprint": None, "bounds": None}
    if place is not None:
        with contextlib.suppress(FileNotFoundError), patch_at_hand(place) as path:
            if exists(path):
                seen = row | _probe_local(path)
                problem = seen["problem"] and seen["problem"].replace(str(path), str(place))
                return seen | {"problem": problem}
    return row | {"status": "missing", "problem": "no patch file"}


@contextmanager
def patch_at_hand(place: Place) -> Iterator[Path]:
    """Give the local path of a patch: what it was packed in is kept at hand, a file of its own not.

    FileNotFoundError where there is none.
    """
    if not is_uri(place):
        yield Path(place)
        return
    file, separator, rest = str(place).partition(SEPARATOR)
    if separator:
        with at_hand(file) as local:
            yield local.with_name(f"{local.name}{separator}{rest}")
        return
    with tempfile.TemporaryDirectory(prefix="embedstore-") as folder:
        local = Path(folder) / name_of(place)
        download(str(place), local)
        yield local


def _probe_local(path: Path) -> dict[str, Any]:
    row = dict[str, Any]()
    try:
        if (packed := locate(path)) is not None:
            image = _decoded(packed)
            row["fingerprint"] = _fingerprint(image)
            width, height = image.size
        else:
            row["fingerprint"] = fingerprint(path)
            with Image.open(path) as image:
                check_mode(image, path)
                width, height = upright_size(image)
    except UNREADABLE as e:
        why = str(e) if locate(path) else why_unread(path, e)
        return row | {"status": "unreadable", "problem": f"{path} cannot be read as a patch: {why}"}
    return row | {"width": width, "height": height, "status": "ok", "problem": None}


def _fingerprint(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


def _decoded(packed: Packed) -> Image.Image:
    pixels = read_packed(packed)
    if not isinstance(pixels, bytes):
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    with Image.open(io.BytesIO(pixels)) as encoded:
        check_mode(encoded, pixels)
        return ImageOps.exif_transpose(encoded)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode not in ("LA", "PA", "RGBA", "P"):
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white
