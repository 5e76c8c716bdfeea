"""How an end-to-end model is trained: every choice that decides its numbers, with its default.

The paper (Ganz et al. 2025) gives: ResNet50 pretrained on ImageNet, one-cycle learning rate with a
maximum of 1e-4, colour jitter, Gaussian blur, flips and rotations, the checkpoint of the lowest
validation loss. The optimiser (Adam), the loss (cross-entropy, on one logit where there are two
labels), batch, length and all strengths are choices made here.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from embedstore.errors import UsageError
from embedstore.models.registry import REGISTRY, check_name
from embedstore.slides.patches import PatchGeometry
from embedstore.slides.slide import is_plausible_mpp

ADAPTATIONS = ("full", "lora", "dora", "head")
WEIGHINGS = ("none", "label", "domain")

BLUR_SHARE = 0.5
"""Which share of the patches is blurred at all."""


@dataclass(frozen=True)
class Recipe:
    """The recipe of one run; the backbone and its weights aside, all of it is in `params`.

    adapt: full trains everything, lora low-rank additions to the attention and MLP projections,
    dora the same with their lengths apart from their directions, head only the last layer. epochs
    divide the schedule, which has at least min_steps steps: of a
    small training set an epoch is several passes. patience: stop after so many epochs without a
    lower validation loss, None: never, since that cuts the end of the one-cycle. jitter: how far
    brightness, contrast and saturation go from 1; hue: how far it turns, in turns; blur: the
    largest sigma in pixels; rotate: the largest angle in degrees; flip: across and down.

    What winners of challenges add, each off where nothing is said. soft_labels: a cell's label is
    its experts' share of votes. focal: gamma of the focal loss (Lin et al. 2017). weigh: each
    label, or each domain, has the same weight in the loss. mixup: alpha of MixUp (Zhang et al.
    2018). hed: how far each stain's strength goes from 1, and its background from 0, in HED (Tellez
    et al. 2018). tta: patches are scored as the mean of their eight flips and turns.
    """

    adapt: str = "full"
    epochs: int = 20
    min_steps: int = 500
    batch_size: int = 32
    max_lr: float = 1e-4
    weight_decay: float = 0.0
    patience: int | None = None
    jitter: float = 0.2
    hue: float = 0.05
    blur: float = 1.5
    rotate: float = 180.0
    flip: bool = True
    lora_rank: int = 16
    soft_labels: bool = False
    focal: float = 0.0
    weigh: str = "none"
    mixup: float = 0.0
    hed: float = 0.0
    tta: bool = False
    patch_px: int = 224
    mpp_out: float = 0.25

    @property
    def geometry(self) -> PatchGeometry:
        """Return the square that the model sees."""
        return PatchGeometry(self.patch_px, self.mpp_out)

    def params(self) -> dict[str, Any]:
        """Return all that decides a run's numbers, ready for JSON."""
        params = asdict(self)
        if self.adapt not in LOW_RANK:
            del params["lora_rank"]
        # A run made before there were these has the same id as one that is made without them.
        return {k: v for k, v in params.items() if k not in EXTRAS or v != EXTRAS[k]}

    def check(self) -> None:
        """Raise EmbedstoreError naming every value that is not allowed."""
        rules: dict[str, tuple[Callable[[Any], bool], str]] = {
            "adapt": (lambda v: v in ADAPTATIONS, ", ".join(ADAPTATIONS)),
            "epochs": (lambda v: v >= 1, "at least 1"),
            "min_steps": (lambda v: v >= 1, "at least 1"),
            "batch_size": (lambda v: v >= 2, "at least 2, for batch normalisation"),
            "max_lr": (lambda v: 0 < v < 1, "between 0 and 1"),
            "weight_decay": (lambda v: 0 <= v < 1, "0 to 1"),
            "patience": (lambda v: v is None or v >= 1, "at least 1"),
            "jitter": (lambda v: 0 <= v < 1, "0 to 1"),
            "hue": (lambda v: 0 <= v <= 0.5, "0 to 0.5 turns"),
            "blur": (lambda v: 0 <= v <= 20, "0 to 20 px"),
            "rotate": (lambda v: 0 <= v <= 180, "0 to 180 degrees"),
            "lora_rank": (lambda v: v >= 1, "at least 1"),
            "focal": (lambda v: 0 <= v <= 10, "0 to 10"),
            "weigh": (lambda v: v in WEIGHINGS, ", ".join(WEIGHINGS)),
            "mixup": (lambda v: 0 <= v <= 10, "0 to 10"),
            "hed": (lambda v: 0 <= v <= 0.5, "0 to 0.5"),
            "patch_px": (lambda v: 16 <= v <= 2048, "16 to 2048"),
            "mpp_out": (is_plausible_mpp, "0.05 to 2.0 um/px"),
        }
        wrong = [
            f"--{name.replace('_', '-')} {getattr(self, name)} (allowed: {allowed})"
            for name, (holds, allowed) in rules.items()
            if not holds(getattr(self, name))
        ]
        if wrong:
            raise UsageError("not allowed: " + "; ".join(wrong))


LOW_RANK = ("lora", "dora")
EXTRAS = {
    f.name: f.default
    for f in fields(Recipe)
    if f.name in ("soft_labels", "focal", "weigh", "mixup", "hed", "tta")
}
"""What winners add, and what each is where it is off."""


def registry_name_of(backbone: str) -> str:
    """Return the registry's name of a backbone: one of its own, timm:NAME or hf-hub:OWNER/NAME.

    resnet50 is the registry's resnet50-imagenet, any other name timm's; EmbedstoreError where it
    has a prefix that means nothing.
    """
    if f"{backbone}-imagenet" in REGISTRY:
        return f"{backbone}-imagenet"
    is_timm = backbone and backbone not in REGISTRY and ":" not in backbone
    name = f"timm:{backbone}" if is_timm else backbone
    check_name(name)
    return name
