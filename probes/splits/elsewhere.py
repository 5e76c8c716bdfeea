"""Another dataset to score: what it holds, and what training on the first gives away of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
from probes.splits.audit import audit
from probes.splits.candidates import Candidates, candidates
from probes.splits.draw import Split
from probes.splits.manifests import StoredSplit
from probes.splits.spec import ManifestSpec


@dataclass(frozen=True)
class Elsewhere:
    """Another dataset's usable annotations; digest: 16 hex digits over what its scores depend on.

    That is the ids, labels, domains, places, slides and cases of its annotations; of its vectors
    the results say the age.
    """

    candidates: Candidates
    digest: str

    @property
    def dataset(self) -> str:
        """Return the dataset's name."""
        return self.candidates.spec.dataset


def elsewhere(store: Store, spec: ManifestSpec, dataset: str) -> Elsewhere:
    """Return a dataset to score with probes of spec; UsageError where it is the same one."""
    if dataset == spec.dataset:
        raise UsageError(
            f"--eval-dataset {dataset} is what the probes are trained on; without the option its "
            "own test sets are scored"
        )
    group_by = "case" if spec.group_by == "case" else "slide"
    found = candidates(store, ManifestSpec(dataset, group_by=group_by))
    return Elsewhere(replace(found, notes=[]), found.manifest_id)


def left_out(other: Elsewhere, order: Sequence[str], target: str) -> list[str]:
    """Return a note on annotations of classes that were not trained on.

    EmbedstoreError where a class that was trained on is missing, without which no metric is whole.
    """
    of = other.candidates.pool.labels if target == "label" else other.candidates.pool.domains
    if target == "label" and (lacking := [name for name in order if name not in set(of)]):
        raise EmbedstoreError(
            f"--eval-dataset {other.dataset} has no annotation of {', '.join(map(repr, lacking))}, "
            "which the probes learn, so no metric over all labels can be given; train without it: "
            f'--where "label in ({", ".join(repr(n) for n in order if n not in lacking)})"'
        )
    if extra := sorted(set(of) - set(order)):
        n = sum(name in extra for name in of)
        return [
            f"{n} annotations of {other.dataset} are {', '.join(map(repr, extra))}, which the "
            "probes do not learn: they are left out of the scores"
        ]
    return []


def audit_elsewhere(
    store: Store, manifest: Candidates, splits: Sequence[StoredSplit], other: Elsewhere
) -> list[dict[str, float | None]]:
    """Return, per split, what its train gives away of the other dataset: see `audit`; patch_um.

    A slide of both is known by its file, or by its name where no file is known; its case follows.
    """
    found = other.candidates
    slides, cases = _same_names(store, manifest, found)
    n = len(manifest.pool.ids)
    place = {i: k for k, i in enumerate(manifest.pool.ids)}
    test = np.arange(n, n + len(found.pool.ids), dtype=np.int64)
    audits, patch_um = [], max(manifest.patch_um, found.patch_um)
    for split in splits:
        train = np.array([place[i] for i in (*split.train, *split.val)], dtype=np.int64)
        shares = audit(
            Split(train, np.empty(0, np.int64), test, "given"),
            slides=[*manifest.slides, *slides],
            cases=[*manifest.cases, *cases],
            centres_um=np.concatenate((manifest.centres_um, found.centres_um)),
            patch_um=patch_um,
        )
        audits.append({**shares, "patch_um": patch_um})
    return audits


def _same_names(
    store: Store, mine: Candidates, other: Candidates
) -> tuple[list[str | None], list[str | None]]:
    """Return the other dataset's slides and cases, by the first one's names where they are its."""
    con = connect(store)
    files: dict[str, dict[str, Any]] = {}
    for c in (mine, other):
        sql = "select slide, fingerprint from _slides where dataset = $dataset"
        rows = fetch_rows(con, sql, {"dataset": c.spec.dataset})
        files[c.spec.dataset] = {r["slide"]: r["fingerprint"] for r in rows}
    here, there = files[mine.spec.dataset], files[other.spec.dataset]
    slide_of = dict(zip(mine.images, mine.slides, strict=True))
    case_of = dict(zip(mine.images, mine.cases, strict=True))
    by_file = {here[image]: image for image in slide_of if here.get(image)}
    named = {s for s in mine.slides if s is not None}
    slides: list[str | None] = []
    cases: list[str | None] = []
    for image, slide, case in zip(other.images, other.slides, other.cases, strict=True):
        twin = _twin(image, here, there, by_file)
        if twin is not None:
            slides.append(slide_of[twin] or slide)
            cases.append(case_of[twin] or case)
        elif slide is None or (slide == image and slide in named):
            slides.append(slide and f"{other.spec.dataset}/{slide}")
            cases.append(case)
        else:
            slides.append(slide)
            cases.append(case)
    return slides, cases


def _twin(
    image: str, here: Mapping[str, Any], there: Mapping[str, Any], by_file: Mapping[Any, str]
) -> str | None:
    """Return the image of the first dataset that is this one: of one file, or name if unknown."""
    if (file := there.get(image)) is not None and file in by_file:
        return by_file[file]
    is_known = there.get(image) is not None and here.get(image) is not None
    return image if image in here and not is_known else None
