"""The stain domains of the demonstration: how each colours tissue."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StainDomain:
    """One source group: its scanner, its stain, and which look-alikes are frequent in it.

    `hematoxylin` and `eosin` are optical densities per unit of stain (R, G, B); `white` is the
    scanner's empty-glass colour (0..255); `blur_um` and `noise` (grey levels) are its optics.
    `clearing` and `reddening` are log-changes of eosin in the bodies of the two sorts of cells,
    `context` says how strongly look-alikes lie in stroma and figures outside it.
    `figures` and `look_alikes` weigh the kinds in FIGURES and LOOK_ALIKES.
    """

    name: str
    mpp: float
    hematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    white: tuple[float, float, float]
    blur_um: float
    noise: float
    nuclear_od: float
    clearing: float
    reddening: float
    context: float
    figures: tuple[float, ...]
    look_alikes: tuple[float, ...]


DOMAINS: tuple[StainDomain, ...] = (
    StainDomain(
        "demo rose",
        0.25,
        (0.95, 1.25, 0.50),
        (0.10, 1.00, 0.38),
        (243, 242, 244),
        blur_um=0.16,
        noise=3.0,
        nuclear_od=1.5,
        clearing=-0.9,
        reddening=0.3,
        context=4.4,
        figures=(4, 3, 2, 2),
        look_alikes=(3, 2, 3, 1, 2),
    ),
    StainDomain(
        "demo violet",
        0.23,
        (1.30, 1.30, 0.60),
        (0.30, 0.90, 0.20),
        (232, 231, 244),
        blur_um=0.24,
        noise=4.5,
        nuclear_od=1.3,
        clearing=-0.95,
        reddening=0.0,
        context=4.8,
        figures=(3, 3, 3, 1),
        look_alikes=(1, 1, 3, 3, 2),
    ),
    StainDomain(
        "demo amber",
        0.46,
        (0.80, 1.00, 0.62),
        (0.06, 0.78, 0.72),
        (246, 238, 220),
        blur_um=0.40,
        noise=7.0,
        nuclear_od=1.25,
        clearing=-0.4,
        reddening=0.5,
        context=3.4,
        figures=(3, 4, 1, 2),
        look_alikes=(2, 4, 1, 1, 3),
    ),
)
