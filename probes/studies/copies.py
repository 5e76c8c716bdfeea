"""Copies: annotations on different slides that show the same cell, renamed slides among them.

Pairs whose vectors are all but one are looked at by pixels, where patches are kept; without pixels
the vectors must be the same to the third digit. A copy in training gives a test cell away, and no
split by slide or case can know it.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.reading.pixels import Patches
from embedstore.store import Store, now
from embedstore.store.layout import COPIES
from embedstore.store.sql import check_dataset, connect, fetch_rows, literal
from probes.slices import Matrix
from probes.splits.candidates import candidates
from probes.splits.spec import ManifestSpec
from probes.studies.cells import models_of, random_models
from probes.studies.measures import Measure, record_measures

STUDY = "copies"
NEAR, SAME = 0.9, 0.999
"""Cosine from which pairs are looked at by pixels; and that of a copy where there are none."""
ALIKE = 0.95
"""Correlation of grey pixels, SIDE x SIDE, from which two patches show the same."""
SIDE, FLAT = 32, 2.0
"""Patches of less spread than FLAT grey levels show nothing that could be the same."""
MOST = 8
"""Nearest annotations of other slides that are looked at for each."""
CHUNK = 512

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Copy:
    """Two annotations that show the same; pixels: their correlation, None where not known."""

    a: str
    b: str
    dataset_a: str
    dataset_b: str
    cosine: float
    pixels: float | None

    @property
    def found_by(self) -> str:
        """What says that it is one."""
        return "vectors" if self.pixels is None else "pixels"


def copies(
    store: Store,
    dataset: str,
    *,
    other: str | None = None,
    model: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Copy], list[Measure], list[str]]:
    """Return the copies within a dataset, or between it and another; recorded; measures; notes.

    metric n_copies, and copies_in_train: of the test annotations of each recorded split, the share
    that has a copy in training (with other: of the other dataset's annotations). model: whose
    vectors are compared, by default the first whose weights are not random.
    """
    con = connect(store)
    for name in (dataset, *([other] if other else ())):
        check_dataset(store, con, name)
    if other == dataset:
        raise UsageError(
            "--other names another dataset; without it copies within one are looked for"
        )
    chosen = _model(con, [d for d in (dataset, other) if d], model)
    sides = [_side(store, chosen, d) for d in (dataset, other) if d]
    pairs = near_pairs(sides[0], sides[-1], within=other is None, on_progress=on_progress)
    grey = _grey(store, con, [d for d in (dataset, other) if d], [i for p in pairs for i in p[:2]])
    found = []
    for a, b, cosine in pairs:
        alike = None
        if a in grey and b in grey:
            alike = correlation(grey[a], grey[b])
            if alike is None or alike < ALIKE:
                continue
        elif cosine < SAME:
            continue
        found.append(Copy(a, b, dataset, other or dataset, cosine, alike))
    _record(store, dataset, other, chosen, found)
    measures = _measures(connect(store), dataset, other, found, len(sides[0].ids))
    if other is None:
        record_measures(store, dataset, STUDY, measures)
    n_blind = len({i for p in pairs for i in p[:2]} - grey.keys())
    notes = [f"compared by vectors of {chosen}"]
    if n_blind:
        notes.append(
            f"{n_blind:,} annotations have no kept patch: of those only vectors that are the same "
            "to the third digit count (ingest keeps patches)"
        )
    return found, measures, notes


def _model(con: Any, datasets: Sequence[str], asked: str | None) -> str:
    have = [set(models_of(con, d, [asked] if asked else None)) for d in datasets]
    both = sorted(set.intersection(*have))
    random = random_models(con)
    able = [m for m in both if m not in random] or both
    if not able:
        raise EmbedstoreError(f"no model has embedded both {' and '.join(datasets)}")
    return able[0]


@dataclass(frozen=True)
class Side:
    """One dataset's annotations: ids, unit vectors float32 (n, d), and the slide of each."""

    ids: list[str]
    unit: NDArray[np.float32]
    slides: NDArray[Any]


def _side(store: Store, model: str, dataset: str) -> Side:
    matrix = Matrix(store, model, dataset)
    usable = set(candidates(store, ManifestSpec(dataset)).pool.ids)
    rows = np.array([n for n, i in enumerate(matrix.ids.tolist()) if i in usable], dtype=np.int64)
    x = matrix.vectors(rows)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    slides = np.array([f"{dataset}/{s}" for s in matrix.facts["slide"][rows]], dtype=object)
    return Side(matrix.ids[rows].tolist(), x / np.maximum(length, 1e-12), slides)


def near_pairs(
    one: Side,
    two: Side,
    *,
    within: bool,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[str, str, float]]:
    """Return pairs (id, id, cosine) of different slides whose cosine is NEAR or more.

    Of each annotation the MOST nearest ones; within one dataset each pair once.
    """
    codes = np.unique(np.concatenate((one.slides, two.slides)).astype(str), return_inverse=True)[1]
    of_one, of_two = codes[: len(one.ids)], codes[len(one.ids) :]
    found: dict[tuple[str, str], float] = {}
    most = min(MOST, len(two.ids))
    for start in range(0, len(one.ids), CHUNK):
        mine = slice(start, start + CHUNK)
        similar = one.unit[mine] @ two.unit.T
        similar[of_one[mine, None] == of_two] = -1.0
        at = np.argpartition(similar, len(two.ids) - most, axis=1)[:, len(two.ids) - most :]
        near = np.take_along_axis(similar, at, axis=1)
        for i, k in zip(*np.nonzero(near >= NEAR), strict=True):
            a, b = one.ids[start + i], two.ids[at[i, k]]
            key = (min(a, b), max(a, b)) if within else (a, b)
            found[key] = float(near[i, k])
        on_progress(min(start + CHUNK, len(one.ids)), len(one.ids))
    return [(a, b, cosine) for (a, b), cosine in sorted(found.items())]


def _grey(
    store: Store, con: Any, datasets: Sequence[str], ids: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Return the patches that are kept, in grey, float64 (SIDE, SIDE)."""
    wanted, found = sorted(set(ids)), {}
    for dataset in datasets:
        for i, patch in Patches(store, con, dataset).read(wanted, SIDE).items():
            found[i] = np.asarray(Image.fromarray(patch).convert("L"), dtype=np.float64)
    return found


def correlation(one: Floats, two: Floats) -> float | None:
    """Return the correlation of two grey patches, None where one shows nothing."""
    a, b = one - one.mean(), two - two.mean()
    if a.std() < FLAT or b.std() < FLAT:
        return None
    return float((a * b).mean() / (a.std() * b.std()))


def _record(
    store: Store, dataset: str, other: str | None, model: str, found: Sequence[Copy]
) -> None:
    """Write the copies of these datasets in place of those found before."""
    at = now()
    rows = [
        {
            "copy_id": hashlib.sha256(f"{c.a}|{c.b}".encode()).hexdigest()[:16],
            **vars(c),
            "found_by": c.found_by,
            "model": model,
            "created_at": at,
        }
        for c in found
    ]
    here = f"dataset_a = {literal(dataset)} and dataset_b = {literal(other or dataset)}"
    if rows:
        store.merge(COPIES, rows, instead_of=here)
    else:
        store.open_table(COPIES).delete(here)


def _measures(
    con: Any, dataset: str, other: str | None, found: Sequence[Copy], n: int
) -> list[Measure]:
    measures = [Measure("n_copies", float(len(found)), n=n)]
    for spec, share, n_test in copies_in_train(con, dataset, other):
        measures.append(Measure("copies_in_train", share, split=spec, n=n_test))
    return measures


def copies_in_train(
    con: Any, dataset: str, other: str | None = None
) -> list[tuple[str, float, int]]:
    """Return of each recorded split what share of its test annotations has a copy in training.

    By what the split is, at its largest fraction, the mean over folds; and how many are tested.
    With another dataset: of that one's annotations.
    """
    pairs = " union ".join(
        f"select {a} as mine, {b} as other from copies where dataset_{a} = $d and dataset_{b} = $o"
        for a, b in (("a", "b"), ("b", "a"))
    )
    if other is None:
        tested = "select split_id, annotation_id from standing where role = 'test'"
    else:
        tested = (
            "select split_id, annotation_id from (select distinct split_id from standing), "
            "(select annotation_id from annotations where dataset = $o and status = 'ok')"
        )
    rows = fetch_rows(
        con,
        "with standing as (select * from manifests where dataset = $d and manifest_id not in "
        f"(select manifest_id from superseded)), pairs as ({pairs}), tested as ({tested}), "
        "seen as (select distinct split_id, p.other as annotation_id from standing m join pairs p "
        "on p.mine = m.annotation_id where m.role = 'train'), shares as (select split_id, "
        "count(*) as n, count(seen.annotation_id) as n_seen from tested left join seen "
        "using (split_id, annotation_id) group by 1) select s.scheme, s.group_by, s.stratify, "
        "s.where_sql, s.seed, s.dataset, avg(n_seen / n) as share, avg(n) as n from shares join "
        "splits s using (split_id) where s.fraction = (select max(fraction) from splits x where "
        "x.manifest_id = s.manifest_id) group by 1, 2, 3, 4, 5, 6 order by 1, 2",
        {"d": dataset, "o": other or dataset},
    )
    return [
        (
            ManifestSpec(
                r["dataset"], r["scheme"], r["group_by"], r["stratify"], r["where_sql"], r["seed"]
            ).words(),
            float(r["share"]),
            round(r["n"]),
        )
        for r in rows
    ]
