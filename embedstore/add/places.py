"""Where annotations lie: from what their file counts in to level-0 pixels of the slide.

A file counts from the slide's corner or, as QuPath does, from that of its scanned area; in pixels,
micrometres or parts of the slide. What is stated is taken; else what the centres themselves say.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedstore.add.changes import Before
from embedstore.add.options import AddOptions
from embedstore.annotations.source import AnnotationFile, Frame, Unit
from embedstore.errors import EmbedstoreError

Row = dict[str, Any]
Point = tuple[float, float]
Area = tuple[float, float, float, float]

MARGIN = 0.05
"""How much more of the centres must lie in the scanned area to go against a format's frame."""

_PARTS: dict[Unit, float] = {"relative": 1, "percent": 100}
_USUAL: dict[str, Frame] = {"geojson": "bounds"}
"""Where a format's tool counts from, if not from the slide's corner."""


@dataclass(frozen=True)
class _Slide:
    """A slide's row, the places of its annotations as the file has them, and their unit."""

    row: Mapping[str, Any]
    points: Sequence[Point]
    unit: Unit

    @property
    def area(self) -> Area | None:
        """x, y, width and height of the scanned area in level-0 pixels, if there is a border."""
        bounds = self.row["bounds"]
        return None if bounds is None else (bounds[0], bounds[1], bounds[2], bounds[3])

    def placed(self, frame: Frame) -> list[Point]:
        """Return the places in level-0 pixels."""
        area = self.area if frame == "bounds" else None
        left, top = area[:2] if area else (0.0, 0.0)
        x_px, y_px = self._pixels(area)
        return [(left + x * x_px, top + y * y_px) for x, y in self.points]

    def n_scanned(self, frame: Frame) -> int:
        """Return how many places lie in the scanned area."""
        assert self.area is not None
        left, top, width, height = self.area
        return sum(
            left <= x < left + width and top <= y < top + height for x, y in self.placed(frame)
        )

    def _pixels(self, area: Area | None) -> Point:
        """Return the pixels of one unit, along x and y."""
        if self.unit == "px":
            return 1.0, 1.0
        if self.unit == "um":
            mpp = self._known("mpp")
            return 1 / mpp, 1 / mpp
        whole = _PARTS[self.unit]
        width, height = area[2:] if area else (self._known("width"), self._known("height"))
        return width / whole, height / whole

    def _known(self, what: str) -> float:
        if self.row.get(what) is None:
            raise EmbedstoreError(
                f"places in {self.unit} need the {what} of slide {self.row['slide']}, which is not "
                f"known ({self.row['problem']}); name the slides' folder with --slides"
            )
        return float(self.row[what])


def place(
    rows: Sequence[Row],
    slides: Sequence[Row],
    content: AnnotationFile,
    options: AddOptions,
    before: Before,
    notes: list[str],
) -> None:
    """Give annotations their centres in level-0 pixels, and slides what they were counted in.

    rows have x_l0 and y_l0 as the file states them. EmbedstoreError where these can be no pixels
    and no unit is stated, or where a slide lacks what its unit needs.
    """
    if content.kind == "patch":
        return
    of = defaultdict[str, list[Row]](list)
    for r in rows:
        of[r["slide"]].append(r)
    known = {
        s["slide"]: _Slide(
            s,
            [(r["x_l0"], r["y_l0"]) for r in of[s["slide"]]],
            _unit(options, content, before.slides.get(s["slide"], {})),
        )
        for s in slides
    }
    _check_pixels(list(known.values()), content, options, notes)
    frames = _frames(known, content, options, before, notes)
    for row in slides:
        slide, (frame, source) = known[row["slide"]], frames[row["slide"]]
        row |= {"unit": slide.unit, "frame": frame, "frame_source": source}
        for r, (x, y) in zip(of[row["slide"]], slide.placed(frame), strict=True):
            r |= {"x_l0": x, "y_l0": y}
    units = sorted({s.unit for s in known.values()} - {"px"})
    if units:
        notes.append(f"places were taken as {' and '.join(units)} (--unit)")
    _note_single(known, frames, notes)


def _unit(options: AddOptions, content: AnnotationFile, old: Mapping[str, Any]) -> Unit:
    """Return what a slide's places are in: as stated, now or by the file or before, else pixels."""
    unit: Unit = options.unit or content.unit or old.get("unit") or "px"
    return unit


def _check_pixels(
    slides: Sequence[_Slide], content: AnnotationFile, options: AddOptions, notes: list[str]
) -> None:
    """Raise EmbedstoreError for places that are parts, note them where they may be micrometres."""
    if options.unit is not None or any(s.unit != "px" for s in slides):
        return
    values = [v for s in slides for point in s.points for v in point]
    if not values:
        return
    parts = "so they are parts of the slide's width and height and no pixels"
    if all(0 <= v <= 1 for v in values) and any(v % 1 for v in values):
        raise EmbedstoreError(
            f"{content.path}: all x and y lie between 0 and 1, {parts}; say --unit relative, or "
            "--unit px if pixels they are"
        )
    sides = [s.row[k] for s in slides for k in ("width", "height") if s.row.get(k)]
    if (
        len(values) >= 2 * _FEW
        and all(0 <= v <= 100 for v in values)
        and any(v % 1 for v in values)
        and min(sides, default=0) >= 1000
    ):
        raise EmbedstoreError(
            f"{content.path}: all x and y lie between 0 and 100 on slides of {min(sides):,} pixels "
            f"and more, {parts}; say --unit percent, or --unit px if pixels they are, or --unit um"
        )
    if len(values) >= 4 * _FEW and all(map(_may_be_um, slides)):
        notes.append(
            "every centre lies in that part of its slide where it would lie if it were in "
            "micrometres; pixels were taken, --unit um takes the other"
        )


_FEW = 5
"""Places of which a regularity may be chance."""


def _may_be_um(slide: _Slide) -> bool:
    """Return whether all places lie in the slide as it is wide in micrometres, far from its end."""
    width, height, mpp = (slide.row.get(k) for k in ("width", "height", "mpp"))
    if not (width and height and mpp) or mpp > 0.6:
        return False
    return all(0 <= x < width * mpp and 0 <= y < height * mpp for x, y in slide.points)


def _frames(
    slides: Mapping[str, _Slide],
    content: AnnotationFile,
    options: AddOptions,
    before: Before,
    notes: list[str],
) -> dict[str, tuple[Frame, str]]:
    """Return from where each slide's places are counted and who says so: option, points, format."""
    bordered = {k: s for k, s in slides.items() if s.area is not None and s.points}
    frames: dict[str, tuple[Frame, str]] = dict.fromkeys(slides, ("level0", "format"))
    open_ones = dict[str, _Slide]()
    for name, slide in bordered.items():
        old = before.slides.get(name, {})
        if options.frame:
            frames[name] = options.frame, "option"
        elif old.get("frame_source") == "option":
            frames[name] = old["frame"], "option"
        else:
            open_ones[name] = slide
    n = sum(len(s.points) for s in open_ones.values())
    inside: dict[Frame, int] = {
        f: sum(s.n_scanned(f) for s in open_ones.values()) for f in ("level0", "bounds")
    }
    usual = _USUAL.get(content.format, "level0")
    other: Frame = "level0" if usual == "bounds" else "bounds"
    is_other = inside[other] - inside[usual] > MARGIN * n
    is_told_apart = abs(inside[other] - inside[usual]) > MARGIN * n
    chosen = (other if is_other else usual), ("points" if is_told_apart else "format")
    frames |= dict.fromkeys(open_ones, chosen)
    if bordered:
        notes.append(_said_of_frames(bordered, frames, inside, n, content.format))
    return frames


def _said_of_frames(
    bordered: Mapping[str, _Slide],
    frames: Mapping[str, tuple[Frame, str]],
    inside: Mapping[Frame, int],
    n: int,
    format: str,
) -> str:
    """Return the note on slides with an empty border: what was taken, why, and the option."""
    first = next(iter(bordered))
    area = bordered[first].area
    assert area is not None
    frame, source = frames[first]
    other: Frame = "level0" if frame == "bounds" else "bounds"
    corners = {"level0": "the slide's corner", "bounds": "that of the scanned area"}
    why = {
        "option": "as stated",
        "points": f"for {inside[frame]} of {n} centres lie in the area so, {inside[other]} if not",
        "format": f"as {format} usually is; the centres do not tell",
    }[source]
    return (
        f"{len(bordered)} slides have an empty border (the scanned area of {first} begins at "
        f"({area[0]:g}, {area[1]:g})): places were counted from {corners[frame]}, {why}; "
        f"--frame {other} counts from {corners[other]}"
    )


def _note_single(
    slides: Mapping[str, _Slide], frames: Mapping[str, tuple[Frame, str]], notes: list[str]
) -> None:
    """Note images with one annotation each that lies off them: these may be patches."""
    sized = {k: s for k, s in slides.items() if s.row.get("width") and s.row.get("height")}
    if len(sized) < 2 or any(len(s.points) != 1 for s in sized.values()):
        return
    for name, slide in sized.items():
        ((x, y),) = slide.placed(frames[name][0])
        if 0 <= x < slide.row["width"] and 0 <= y < slide.row["height"]:
            return
    notes.append(
        "each image has one annotation, whose centre lies off it: if the images are patches, "
        "add them with --format patches"
    )
