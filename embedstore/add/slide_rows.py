"""The rows of `slides` that `add` writes: the size, scale and state of each file."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from embedstore.add.changes import Before
from embedstore.annotations.source import SourceSlide
from embedstore.errors import EmbedstoreError
from embedstore.files.objects import Place, place
from embedstore.slides.images import probe_patch
from embedstore.slides.slide import (
    AGAINST,
    FROM_FILE,
    MPP_MAX,
    MPP_MIN,
    is_plausible_mpp,
    probe,
)


def slide_row(
    dataset: str,
    slide: SourceSlide,
    attributes: Mapping[str, str],
    kind: str,
    path: Place | None,
    mpp: float | Literal["file"] | None,
    before: Before,
) -> dict[str, Any]:
    """Return a slide's row but for its case; mpp is the option's, path where its file lies."""
    old = before.slides.get(slide.slide, {})
    if old.get("kind", kind) != kind:
        raise EmbedstoreError(
            f"{slide.slide} is registered in '{dataset}' as a {old['kind']}, not as a {kind}; "
            "register these under another dataset name"
        )
    if path is None and old.get("path"):
        path = place(old["path"])  # an earlier add was told where it is, this one was not
    row = {
        "slide_id": f"{dataset}/{slide.slide}",
        "dataset": dataset,
        "slide": slide.slide,
        "kind": kind,
        "path": str(path) if path else None,
        "width": slide.width,
        "height": slide.height,
        "scanner": attributes.get("scanner") or attributes.get("Scanner"),
        "attributes": json.dumps(dict(sorted(attributes.items())), ensure_ascii=False),
    }
    if kind == "patch":
        return row | probe_patch(path) | {"source_slide": attributes.get("slide")}
    given: tuple[float | None, str | None]
    wins = True  # what a user states outright is taken, whatever the file says
    if mpp == "file":
        given, wins = (None, None), False
    elif mpp:
        given = mpp, "option"
    elif stated_mpp := _table_mpp(slide.slide, attributes):
        given = stated_mpp, "slide table"
    elif old.get("mpp_source") in (None, FROM_FILE):
        of_dataset = before.entry.get("mpp")  # stated when other slides were added
        given, wins = (of_dataset, "option") if of_dataset else (None, None), False
    else:
        given = old["mpp"], old["mpp_source"]
    row |= probe(path, given, wins=wins)
    if row["status"] in ("missing", "unreadable") and old.get("fingerprint"):
        # What was known of the file stays, so that another one in its place is seen.
        kept = (
            "fingerprint",
            "width",
            "height",
            "bounds",
            *(("mpp", "mpp_source") if not mpp else ()),
        )
        row |= {k: old[k] for k in kept if old.get(k) is not None}
    return row


def name_source_slides(slides: Sequence[dict[str, Any]], notes: list[str]) -> None:
    """Tell apart the slides of patches that have one name in several cases, and say so."""
    cases = defaultdict[str, set[str]](set)
    for s in slides:
        if s.get("source_slide"):
            cases[s["source_slide"]].add(s["case_id"])
    several = sorted(k for k, of in cases.items() if len(of) > 1)
    for s in slides:
        if s.get("source_slide") in several:
            s["source_slide"] = f"{s['case_id']}/{s['source_slide']}"
    if several:
        notes.append(
            f"{len(several)} names of slides stand in several cases ({', '.join(several[:3])}): "
            "they are taken as a slide in each, CASE/SLIDE"
        )


def note_mpp(slides: Sequence[Mapping[str, Any]], notes: list[str]) -> None:
    """Append which slides' files state another mpp than the one that was given and taken."""
    against = [s for s in slides if (s["problem"] or "").startswith(AGAINST)]
    if against:
        notes.append(
            f"{len(against)} slides: {against[0]['problem']}, for example {against[0]['slide']}; "
            "--mpp file takes the files' own again, without a column mpp"
        )


def note_sizes(slides: list[dict[str, Any]], notes: list[str]) -> None:
    """Append how many patches have which size, unless all are as models take them: 224 x 224."""
    sizes = Counter((r["width"], r["height"]) for r in slides if r["status"] == "ok")
    if set(sizes) <= {(224, 224)}:
        return
    common = [f"{n:,} are {width} x {height}" for (width, height), n in sizes.most_common(5)]
    if len(sizes) > 5:
        rest = sum(n for _, n in sizes.most_common()[5:])
        common.append(f"{rest:,} have one of {len(sizes) - 5:,} other sizes")
    notes.append(
        f"patches by size in pixels: {', '.join(common)}; ingest resizes them to --patch-px and "
        "stores that it did"
    )


def _table_mpp(slide: str, attributes: Mapping[str, str]) -> float | None:
    if "mpp" not in attributes:
        return None
    try:
        mpp = float(attributes["mpp"])
    except ValueError:
        mpp = None
    if not is_plausible_mpp(mpp):
        raise EmbedstoreError(
            f"the mpp of slide {slide}, '{attributes['mpp']}', is not between {MPP_MIN} and "
            f"{MPP_MAX} um/px; correct the table"
        )
    return mpp
