"""Look at the mistakes: patches from the cache beside what the models said of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from embedstore.reading.images import SHOT_PX, data_address
from embedstore.reading.pixels import Patches
from probes.reports.blocks import Block, Gallery, Missing, Prose, Section, Shot
from probes.reports.data import Facts
from probes.reports.makers import Maker, Material
from probes.reports.predictions import Scores
from probes.reports.repeat import command
from probes.scores.sides import Side

N_SHOWN, N_MODELS = 6, 20


def mistakes(material: Material) -> Section:
    """Return the section of the most confident mistakes and of what sides disagree on."""
    facts, scores = material.facts, material.scores
    scored = {s.condition.dataset for s in scores}
    blocks: list[Block] = [
        Missing(f"{d.dataset} has no predictions yet.", command("probes", "run", d.dataset))
        for d in facts.datasets
        if d.dataset not in scored
    ]
    for s in scores:
        blocks += _of_dataset(facts, s)
    return Section("mistakes", "Look at the mistakes", blocks)


def _of_dataset(facts: Facts, s: Scores) -> list[Block]:
    dataset, positive = s.condition.dataset, s.positive
    wrong = s.mistakes(N_SHOWN)
    trained = [e for e in s.sides if e.is_e2e]
    probes = [e for e in s.sides if not e.is_e2e]
    apart = s.disagreements(s.sides, N_SHOWN) if len(s.sides) > 1 else []
    against = s.against(probes, trained[0], N_SHOWN) if trained and probes else []
    rows = [r for kinds in wrong.values() for rs in kinds.values() for r in rs] + apart + against
    kept = Patches(facts.store, facts.con, dataset)
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
    blocks += [_wrong(facts, kind, title, wrong, images) for kind, title in _kinds(s).items()]
    shots = {"among all": [_disagreement(facts, s, r, images) for r in apart]}
    if trained:
        title = f"probes against {facts.names[trained[0]]}"
        shots[title] = [_against(r, images) for r in against]
    shown = [(title, row) for title, row in shots.items() if row]
    return [*blocks, Gallery("Where they disagree most", shown)] if shown else blocks


def _kinds(s: Scores) -> dict[str, str]:
    """Return the kinds of mistakes of a dataset, and what the page calls each."""
    if s.positive:
        return {
            "false_positive": "False positives, most confident first",
            "false_negative": "False negatives, most confident first",
        }
    return {"wrong": "Taken for another label, most confident first"}


def _wrong(
    facts: Facts,
    kind: str,
    title: str,
    wrong: Mapping[Side, Mapping[str, Sequence[dict[str, Any]]]],
    images: dict[str, str],
) -> Gallery:
    gallery = [
        (
            facts.names[side],
            [
                _shot(r, images, [f"{r.get('said', 'score')} {r['score']:.2f}"])
                for r in wrong[side][kind]
            ],
        )
        for side in list(wrong)[:N_MODELS]
    ]
    left = len(wrong) - len(gallery)
    return Gallery(title, gallery, f"{left} more models are not shown." if left else "")


def _disagreement(facts: Facts, s: Scores, row: dict[str, Any], images: dict[str, str]) -> Shot:
    low, high = (facts.names[s.sides[row[f"{end}_side"]]] for end in ("low", "high"))
    return _shot(row, images, [f"{row['low']:.2f} {low}", f"{row['high']:.2f} {high}"])


def _against(row: dict[str, Any], images: dict[str, str]) -> Shot:
    return _shot(row, images, [f"probes {row['probes']:.2f}", f"end to end {row['trained']:.2f}"])


def _any_model(facts: Facts) -> str:
    return next((m for m in facts.models if m in facts.embedded), "MODEL")


def _shot(r: dict[str, Any], images: dict[str, str], lines: Sequence[str]) -> Shot:
    return Shot(
        images.get(r["annotation_id"], ""), [*lines, r["label"], r["domain"], r["annotation_id"]]
    )


SECTION = Maker(50, mistakes)
