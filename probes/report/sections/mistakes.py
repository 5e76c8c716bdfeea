"""Look at the mistakes: patches from the cache beside what the models said of them."""

import base64
import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.errors import SlideError
from embedstore.slides.patches import PatchGeometry, centre, fit_patch
from embedstore.slides.slide import read_image
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import fetch_rows, literal
from probes.report.blocks import Block, Gallery, Missing, Prose, Section, Shot
from probes.report.data import Facts
from probes.report.predictions import Scores
from probes.report.repeat import command

N_SHOWN, N_MODELS = 6, 20
SHOT_PX, THUMB_PX = 112, 56
"""Width of a patch among the mistakes, and of one of the map."""
SHEET = 12
"""Thumbnails in a row of a sheet."""


class Patches:
    """The patches of one dataset: those kept, at the size most are kept at, and pre-cropped files.

    width_um: how wide a patch is, None where no kept one says it.
    """

    def __init__(self, facts: Facts, dataset: str) -> None:
        """Look up what is kept and which files are patches; writes nothing."""
        self._cache: PatchCache | None = None
        self.width_um: float | None = None
        self._files = {
            r["annotation_id"]: r["path"]
            for r in fetch_rows(
                facts.con,
                "select a.annotation_id, s.path from annotations a join slides s using "
                f"(dataset, slide) where dataset = {literal(dataset)} and s.kind = 'patch' "
                "and s.path is not null and s.status = 'ok'",
            )
        }
        kept = fetch_rows(
            facts.con,
            "select mpp_out, min(size_px) as least, count(*) as n from patches where "
            f"dataset = {literal(dataset)} group by 1 order by n desc, 1 limit 1",
        )
        if kept:
            # The widest usual patch that fits into the narrowest crop kept.
            sizes = [
                px
                for px in (224, 192, 128, 112, 96, 64, 32)
                if PatchGeometry(px).wide().size_px <= kept[0]["least"]
            ]
            if sizes:
                self._size = sizes[0]
                self.width_um = sizes[0] * kept[0]["mpp_out"]
                geometry = PatchGeometry(sizes[0], kept[0]["mpp_out"])
                self._cache = PatchCache(facts.store, dataset, geometry)

    def __bool__(self) -> bool:
        """Return whether there is any patch to show."""
        return self._cache is not None or bool(self._files)

    def read(self, ids: Iterable[str], size_px: int) -> dict[str, NDArray[np.uint8]]:
        """Return those patches that are there, each uint8 (size_px, size_px, 3)."""
        found: dict[str, NDArray[np.uint8]] = {}
        wanted = list(dict.fromkeys(ids))
        for i in (i for i in wanted if i in self._files):
            with contextlib.suppress(SlideError):  # a file that is gone since is blank on the page
                found[i] = fit_patch(read_image(self._files[i]), size_px)
        if self._cache is None:
            return found
        for k in range(0, len(wanted), 128):
            for i, crop in self._cache.read(wanted[k : k + 128]).items():
                image = Image.fromarray(np.ascontiguousarray(centre(crop, self._size)))
                found[i] = np.asarray(
                    image.resize(
                        (size_px, size_px),
                        Image.Resampling.BOX
                        if self._size % size_px == 0
                        else Image.Resampling.BICUBIC,
                    )
                )
        return found


def data_address(pixels: NDArray[np.uint8], quality: int = 80) -> str:
    """Return an image as a data address that a page shows without a file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def sheet(patches: Sequence[NDArray[np.uint8] | None]) -> str:
    """Return thumbnails as one image, SHEET a row; what is None stays blank."""
    n_rows = -(-len(patches) // SHEET)
    whole = np.full((n_rows * THUMB_PX, SHEET * THUMB_PX, 3), 235, dtype=np.uint8)
    for k, patch in enumerate(patches):
        if patch is not None:
            y, x = k // SHEET * THUMB_PX, k % SHEET * THUMB_PX
            whole[y : y + THUMB_PX, x : x + THUMB_PX] = patch
    return data_address(whole, 70)


def mistakes(facts: Facts, scores: Sequence[Scores]) -> Section:
    """Return the section of the most confident mistakes and of what entries disagree on."""
    scored = {s.condition.dataset for s in scores}
    blocks: list[Block] = [
        Missing(f"{d['dataset']} has no predictions yet.", command("probes", "run", d["dataset"]))
        for d in facts.datasets
        if d["dataset"] not in scored
    ]
    for s in scores:
        blocks += _of_dataset(facts, s)
    return Section("mistakes", "Look at the mistakes", blocks)


def _of_dataset(facts: Facts, s: Scores) -> list[Block]:
    dataset, positive = s.condition.dataset, s.positive
    wrong = s.mistakes(N_SHOWN)
    trained = [e for e in s.entries if e.is_e2e]
    probes = [e for e in s.entries if not e.is_e2e]
    apart = s.disagreements(s.entries, N_SHOWN) if len(s.entries) > 1 else []
    against = s.against(probes, trained[0], N_SHOWN) if trained and probes else []
    rows = [r for kinds in wrong.values() for rs in kinds.values() for r in rs] + apart + against
    kept = Patches(facts, dataset)
    pixels = kept.read((r["annotation_id"] for r in rows), SHOT_PX)
    images = {i: data_address(p) for i, p in pixels.items()}
    blocks: list[Block] = [
        Prose(
            f"{dataset}, {s.condition}, fraction {s.fraction:g}. Scores are the probability of "
            + (f"\u201c{positive}\u201d" if positive else "a label")
            + ", means over the folds that tested the annotation."
            + (f" Each patch is {kept.width_um:g} um wide." if kept.width_um else "")
        )
    ]
    if not kept:
        blocks.append(
            Missing(
                f"No patch of {dataset} is kept, so none can be shown: `ingest` and `e2e run` keep "
                "what they read from slides unless --no-patch-cache says otherwise.",
                command("embedstore", "ingest", dataset, "--model", _any_model(facts)),
            )
        )
    shown = list(wrong)[:N_MODELS]
    kinds = (
        {
            "false_positive": f"Taken for \u201c{positive}\u201d, most surely first",
            "false_negative": f"Missed \u201c{positive}\u201d, most surely first",
        }
        if positive
        else {"wrong": "Taken for another label, most surely first"}
    )
    for kind, title in kinds.items():
        gallery = [
            (
                facts.names[e],
                [
                    _shot(r, images, [f"{r.get('said', 'score')} {r['score']:.2f}"])
                    for r in wrong[e][kind]
                ],
            )
            for e in shown
        ]
        left = len(wrong) - len(shown)
        note = f"{left} more models are not shown." if left else ""
        blocks.append(Gallery(title, gallery, note))
    rows_shown = []
    if apart:
        rows_shown.append(
            (
                "among all",
                [
                    _shot(
                        r,
                        images,
                        [
                            f"{r['low']:.2f} {facts.names[s.entries[r['low_entry']]]}",
                            f"{r['high']:.2f} {facts.names[s.entries[r['high_entry']]]}",
                        ],
                    )
                    for r in apart
                ],
            )
        )
    if against:
        rows_shown.append(
            (
                f"probes against {facts.names[trained[0]]}",
                [
                    _shot(
                        r, images, [f"probes {r['probes']:.2f}", f"end to end {r['trained']:.2f}"]
                    )
                    for r in against
                ],
            )
        )
    return [*blocks, Gallery("Where they disagree most", rows_shown)] if rows_shown else blocks


def _any_model(facts: Facts) -> str:
    return next((m for m, r in facts.models.items() if r["is_embedded"]), "MODEL")


def _shot(r: dict[str, Any], images: dict[str, str], lines: Sequence[str]) -> Shot:
    return Shot(
        images.get(r["annotation_id"], ""), [*lines, r["label"], r["domain"], r["annotation_id"]]
    )
