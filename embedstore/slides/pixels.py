"""Pixels that would be read wrongly without a word, and why a file cannot be read, in words."""

from pathlib import Path

from embedstore.slides.tiff import COMPRESSIONS, UPRIGHT, Source, opened, read_header

CONVERT = "convert it, for example with vips: `vips tiffsave IN OUT.tiff --tile --pyramid`"


def check_tiff(source: Source, *, must_be_upright: bool = False) -> None:
    """Raise ValueError for a TIFF whose pixels are not 8-bit grey or RGB, or that is stored turned.

    must_be_upright: whether the reader would pass over the tag that says so.
    """
    header = read_header(source)
    if header is None:
        return
    if header.problem is not None:
        raise ValueError(f"{header.problem}; make it 8-bit RGB")
    if must_be_upright and header.orientation != UPRIGHT:
        raise ValueError(
            f"it is stored turned (its orientation is {header.orientation}), which is not undone "
            f"for slides; turn it: `vips autorot IN OUT.tiff`"
        )


def check_png(source: Source) -> None:
    """Raise ValueError for a PNG of more than 8 bits a channel, of which readers take eight."""
    with opened(source) as f:
        head = f.read(26)
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) == 26 and head[24] > 8:
        raise ValueError(f"its pixels have {head[24]} bits a channel; convert it to RGB of 8")


def why_unread(path: Path, error: Exception) -> str:
    """Return why a file cannot be read: its compression or kind if that is known, else `error`."""
    try:
        with path.open("rb") as f:
            head = f.read(132)
    except OSError:
        return str(error)
    header = read_header(path)
    if header is not None and header.compression in COMPRESSIONS and header.problem is None:
        name = COMPRESSIONS[header.compression]
        return f"it is compressed as {name}, which is not read in this kind of file; {CONVERT}"
    if head[128:132] == b"DICM" or path.suffix.lower() == ".dcm":
        return (
            "it is a DICOM file that is no whole-slide image (or one of another transfer syntax "
            "than JPEG, JPEG 2000 or none); convert it to a tiled TIFF, for example with wsidicom"
        )
    text = str(error)
    return text if str(path) not in text else "no reader knows what kind of file it is"
