"""How `add` reads a file: its options, and which of them go together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from embedstore.annotations.columns import NOTHING, Declared
from embedstore.annotations.source import Frame, Unit
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.files.objects import Place, is_folder, is_uri
from embedstore.slides.slide import MPP_MAX, MPP_MIN, is_plausible_mpp


@dataclass(frozen=True)
class AddOptions:
    """How a file is read: see `embedstore add --help` for each option.

    mpp: um per level-0 pixel of every slide, or "file" to take what the slides' files say again.
    """

    format: str = "auto"
    slides: Place | None = None
    mpp: float | Literal["file"] | None = None
    slide_table: Place | None = None
    domain: str | None = None
    domain_from: str | None = None
    case_from: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    positive: str | None = None
    declared: Declared = NOTHING
    unit: Unit | None = None
    frame: Frame | None = None
    dry_run: bool = False


def check_options(dataset: str, options: AddOptions) -> None:
    """Raise UsageError for options that are not of their kind or contradict each other."""
    if not dataset or "/" in dataset or dataset != dataset.strip():
        raise UsageError(f"'{dataset}' cannot name a dataset: give a word without a slash")
    if isinstance(options.mpp, float | int) and not is_plausible_mpp(options.mpp):
        raise UsageError(
            f"--mpp {options.mpp:g} is not between {MPP_MIN} and {MPP_MAX} um/px; "
            "give micrometres per pixel of level 0 (0.25 for a x40 scan)"
        )
    if options.case_from and options.declared.case_from_name:
        raise UsageError("give --case-from COLUMN or --case-from-name REGEX, not both")
    if options.domain and options.domain_from:
        raise UsageError("give --domain NAME or --domain-from COLUMN, not both")
    slides = options.slides
    if slides is not None and not (
        is_folder(str(slides)) if is_uri(slides) else Path(slides).is_dir()
    ):
        raise EmbedstoreError(f"no folder of slides at {options.slides}")
