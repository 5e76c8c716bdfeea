"""The verb `explore`: a model's embeddings on a map one can walk through, with their patches."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore.reading.atlas import check_atlas, write_atlas
from embedstore.reading.projection import MIN_DIST, N_NEIGHBORS, principal_components, umap
from embedstore.reading.thumbnails import thumbnails
from embedstore.reading.vectors import ID, vectors_of
from embedstore.store import Store
from embedstore.store.sql import connect, fetch, literal

SEED = 42
ABOUT = (
    "annotation_id, label, domain, array_to_string(tags, '; ') as tags, scanner, dataset, slide, "
    "case_id, split"
)
_ORDER = (ID, "patch", "label", "domain", "error", "doubt", "said", "tags")
"""What comes first of a row: the page shows columns, and charts of them, in their order."""
_LEFT_OUT_IF_EMPTY = ("scanner", "split", "tags")

JUDGED = """
with scored as (
  select annotation_id, p.label, avg(score) as score, count(*) as n_runs
  from predictions p semi join (
    select run_id from results where model = {model} and target = 'label' and method != 'e2e'
  ) using (run_id)
  where role = 'test' group by 1, 2
), named as (
  select s.*, r.label as own, count(*) over (partition by annotation_id) = 1 as is_binary
  from scored s join _rows r using (annotation_id)
), others as (
  select p.label as positive, min(t.own) as other
  from (select distinct label from named where is_binary) p
  join (select distinct own from named where is_binary) t on t.own != p.label
  group by 1
)
select annotation_id,
  case when any_value(is_binary)
    then if(any_value(score) >= 0.5, any_value(n.label), coalesce(any_value(other), 'another'))
    else first(n.label order by score desc, n.label) end as said,
  1 - coalesce(case when any_value(is_binary)
    then if(any_value(n.label) = any_value(own), any_value(score), 1 - any_value(score))
    else max(score) filter (n.label = own) end, 0) as doubt
from named n left join others o on o.positive = n.label
group by 1
"""
"""What a model's recorded probes said of each cell where they had not seen it: the mean of runs."""


@dataclass
class Explored:
    """What a page shows: how many cells, with how many pictures, judged by how many runs' tests."""

    n_cells: int
    n_pictures: int
    n_judged: int
    notes: list[str] = field(default_factory=list)

    def row(self, model: str, output: str) -> dict[str, Any]:
        """Return what the command prints."""
        numbers = {k: getattr(self, k) for k in ("n_cells", "n_pictures", "n_judged")}
        return {"page": output, "model": model, **numbers}


@dataclass(frozen=True)
class ExploreOptions:
    """Which cells of a model, and how they are shown.

    umap: UMAP's map beside the principal components', with a seed. pictures: patches beside points.
    """

    model: str
    dataset: str | None = None
    where: str | None = None
    umap: bool = False
    seed: int = SEED
    pictures: bool = True


def explore(
    store: Store,
    options: ExploreOptions,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Explored:
    """Write a page that shows a model's embeddings as a map, with their patches; say what is on it.

    EmbedstoreError where there are none, or a package is missing.
    """
    check_atlas()
    rows, notes = _placed(store, options)
    rows, n_judged = _judged(store, options, rows, notes)
    rows, n_pictures = _pictured(store, options, rows, notes, on_progress)
    first = [c for c in _ORDER if c in rows.column_names]
    rows = rows.select([*first, *(c for c in rows.column_names if c not in first)])
    write_atlas(
        rows,
        folder,
        key=ID,
        places=("umap_x", "umap_y") if options.umap else ("pca_x", "pca_y"),
        picture="patch" if n_pictures else None,
        colour="label",
        hidden=("pca_x", "pca_y", "umap_x", "umap_y", "patch", ID),
    )
    return Explored(len(rows), n_pictures, n_judged, notes)


def _placed(store: Store, options: ExploreOptions) -> tuple[pa.Table, list[str]]:
    vectors, rows = vectors_of(store, options.model, options.dataset, options.where, ABOUT)
    for column in _LEFT_OUT_IF_EMPTY:
        if set(rows[column].unique().to_pylist()) <= {None, ""}:
            rows = rows.drop_columns([column])
    places, shares = principal_components(vectors)
    for n, name in enumerate(("pca_x", "pca_y")):
        rows = rows.append_column(name, pa.array(places[:, n]))
    notes = [
        f"pca: the first two principal components, {shares[0]:.0%} and {shares[1]:.0%} of the "
        "variance"
    ]
    if options.umap:
        places = umap(vectors, options.seed)
        for n, name in enumerate(("umap_x", "umap_y")):
            rows = rows.append_column(name, pa.array(places[:, n]))
        notes.append(
            f"umap: {N_NEIGHBORS} neighbours by cosine, min_dist {MIN_DIST:g}, seed "
            f"{options.seed}; distances between clusters mean little"
        )
    return rows, notes


def _judged(
    store: Store, options: ExploreOptions, rows: pa.Table, notes: list[str]
) -> tuple[pa.Table, int]:
    """Add what probes of the model said of each cell that they had not seen: error, doubt, said."""
    con = connect(store)
    con.register("_rows", rows.append_column("_place", pa.array(range(len(rows)))))
    judged = JUDGED.format(model=literal(options.model))
    found = fetch(
        con,
        f"select r.* exclude (_place), j.said, case when j.said is null then 'not tested' "
        "when j.said = r.label then 'right' else r.label || ' taken for ' || j.said end as error, "
        "j.doubt "
        f"from _rows r left join ({judged}) j using ({ID}) order by _place",
    )
    n_judged = len(found) - found["said"].null_count
    if not n_judged:
        notes.append(
            f"no probe of {options.model} was tested on them yet, so there is no error and no "
            f"doubt: probes run {options.dataset or 'DATASET'} --model {options.model}"
        )
        return rows, 0
    notes.append(
        f"error and doubt: of {n_judged:,} cells, by the mean of the recorded probes of "
        f"{options.model} that had not seen them"
    )
    return found, n_judged


def _pictured(
    store: Store,
    options: ExploreOptions,
    rows: pa.Table,
    notes: list[str],
    on_progress: Callable[[int, int], None],
) -> tuple[pa.Table, int]:
    if not options.pictures:
        return rows, 0
    ids, datasets = rows[ID].to_pylist(), rows["dataset"].to_pylist()
    made: dict[str, bytes] = {}
    for name in dict.fromkeys(datasets):
        mine = [i for i, d in zip(ids, datasets, strict=True) if d == name]
        made |= thumbnails(store, name, mine, on_progress)
    if len(made) < len(ids):
        notes.append(
            f"{len(ids) - len(made):,} cells have no picture: no patch is kept and their slide is "
            "not at hand"
        )
    if not made:
        return rows, 0
    return rows.append_column("patch", pa.array([made.get(i) for i in ids], pa.binary())), len(made)
