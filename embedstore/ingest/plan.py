"""What an ingest has to do: what each model lacks, and what a model's name stands for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.embeddings.crops import DOWN_THE_SLIDES, PLACES, Placed, slide_jobs
from embedstore.errors import EmbedstoreError
from embedstore.ingest.options import Shard
from embedstore.slides.patches import PLAIN, embedded_views
from embedstore.slides.reading import SlideJob
from embedstore.store import Store
from embedstore.store.layout import model_schema, views_schema
from embedstore.store.sql import (
    connect,
    fetch,
    fetch_rows,
    identifier,
    literal,
    stored_name,
    views_name,
)

Lacks = list[tuple[str, tuple[str, ...]]]
"""By the flags lacks_0, lacks_1, ...: the model that lacks something, and which views."""

PORTION = 20_000
"""Annotations that are looked up at once, a whole slide's at least: memory is bounded by it."""


@dataclass(frozen=True)
class Plan:
    """What is to be embedded of a dataset, looked up portion by portion.

    n_done and n_vectors are by model: what it has, and what it lacks, views included. set_aside:
    the slides not ok and why; slides: how many annotations of each are to be read, in their order;
    of_all: the same without the limit, and of all shards.
    """

    dataset: str
    n_annotations: int
    n_off_slide: int
    n_done: dict[str, int]
    n_vectors: dict[str, int]
    set_aside: dict[str, str]
    slides: dict[str, int]
    of_all: dict[str, int]
    n_patches: int
    con: Any
    lacks: Lacks

    @property
    def n(self) -> int:
        """How many annotations are to be read."""
        return sum(self.slides.values())

    def jobs(self, only: Sequence[str] | None = None) -> Iterator[SlideJob]:
        """Yield the reading of what is to be embedded, slide by slide, neighbours together.

        only: of these slides; those of which nothing is to be embedded are passed over.
        """
        chosen = self.slides if only is None else {s: self.slides.get(s, 0) for s in only}
        for portion in _portions(chosen, PORTION):
            yield from slide_jobs(self._placed(portion))

    def portions(self, most: int) -> list[tuple[str, ...]]:
        """Return all slides in up to so many portions, alike in the annotations to be read."""
        return [tuple(p) for p in _portions(self.slides, -(-self.n // most))]

    def sample(self, n: int) -> list[SlideJob]:
        """Return the reading of up to n of the annotations, spread evenly over all."""
        # Of all shards: what is decided by a sample must be the same in each.
        n_all = sum(self.of_all.values())
        chosen = np.linspace(0, n_all - 1, min(n, n_all)).round().astype(int)
        slides, ends = list(self.of_all), np.cumsum(list(self.of_all.values()))
        of = np.searchsorted(ends, chosen, side="right")
        jobs = list[SlideJob]()
        for s in dict.fromkeys(of.tolist()):
            placed = self._placed([slides[s]], "_readable")
            start = ends[s] - len(placed)
            jobs += slide_jobs([placed[k - start] for k in chosen[of == s].tolist()])
        return jobs

    def ids(self) -> Iterator[str]:
        """Yield the annotations that are to be read from slides, patches left out, in no order."""
        rows = fetch(
            self.con, "select annotation_id from _todo where kind is distinct from 'patch'"
        )
        for batch in rows["annotation_id"].iterchunks():
            yield from batch.to_pylist()

    def n_made_anew(self, models: Sequence[str]) -> int:
        """Return of how many the models have a vector that is of other pixels than it would be."""
        parts = [
            f"select annotation_id from {identifier(stored_name(m))} anti join {identifier(m)} "
            "using (annotation_id) semi join _todo using (annotation_id)"
            for m in models
        ]
        if not parts:
            return 0
        sql = f"select count(distinct annotation_id) as n from ({' union all '.join(parts)})"
        return int(fetch_rows(self.con, sql)[0]["n"])

    def _placed(self, slides: Sequence[str], table: str = "_todo") -> list[Placed]:
        """Return what is to be embedded of some slides."""
        flags = ", ".join(f"t.lacks_{i}" for i in range(len(self.lacks)))
        rows = fetch_rows(
            self.con,
            f"select * from (select p.*, {flags} from ({PLACES}) p join {table} t using "
            f"(annotation_id) where p.slide in (select unnest($slides::varchar[]))) "
            f"{DOWN_THE_SLIDES}",
            {"dataset": self.dataset, "slides": list(slides)},
        )
        placed = []
        for row in rows:
            wants: dict[str, tuple[str, ...]] = {}
            for i, (name, views) in enumerate(self.lacks):
                if row.pop(f"lacks_{i}"):
                    wants[name] = (*wants.get(name, ()), *views)
            placed.append(Placed(**row, wants=wants))
        return placed


def plan(
    store: Store,
    dataset: str,
    names: Sequence[str],
    views: Sequence[str] = (),
    limit: int | None = None,
    shard: Shard | None = None,
) -> Plan:
    """Return what of a dataset the named models lack: their own vectors and, together, `views`.

    Views are wanted again where one of them is not there. limit: so many annotations at most, the
    first in the order of reading; shard: of its slides alone.
    """
    con = connect(store)
    lacks = _look_up(store, con, dataset, names, views, limit, shard)
    (counts,) = fetch_rows(
        con,
        "select count(*) as n, count(*) filter (status = 'off-slide') as n_off, "
        "(select count(*) from _todo where kind = 'patch') as n_patches "
        "from annotations where dataset = $dataset",
        {"dataset": dataset},
    )
    aside = fetch_rows(
        con,
        f"select slide, problem from slides where dataset = {literal(dataset)} "
        "and status != 'ok' order by slide",
    )
    on_slides, of_all = (
        {
            r["slide"]: int(r["n"])
            for r in fetch_rows(con, f"select slide, count(*) as n from {of} group by 1 order by 1")
        }
        for of in ("_todo", "_readable")
    )
    n_done = {}
    for n, name in enumerate(names):
        flag = f"lacks_{lacks.index((name, (PLAIN,)))}"
        n_done[name] = _count_once(con, name, f"_have_{n}", flag, counts["n"])
    return Plan(
        dataset,
        counts["n"],
        counts["n_off"],
        n_done,
        _n_vectors(con, lacks),
        {r["slide"]: r["problem"] for r in aside},
        on_slides,
        of_all,
        counts["n_patches"],
        con,
        lacks,
    )


def _look_up(
    store: Store,
    con: Any,
    dataset: str,
    names: Sequence[str],
    views: Sequence[str],
    limit: int | None,
    shard: Shard | None,
) -> Lacks:
    """Make tables of what is lacked and of what of it is to be read; return what each flag says."""
    existing, viewed = set(store.models()), set(store.viewed_models())
    lacks, conditions = Lacks(), []
    for n, name in enumerate(names):
        source = _source(con, name, name in existing, model_schema(1))
        con.execute(
            f"create temp table _have_{n} as select annotation_id from {source} where dataset = ?",
            [dataset],
        )
        lacks.append((name, (PLAIN,)))
        conditions.append(f"annotation_id not in (select annotation_id from _have_{n})")
        if views:
            source = _source(con, views_name(name), name in viewed, views_schema(1))
            lacks.append((name, tuple(views)))
            conditions.append(
                f"annotation_id not in (select annotation_id from {source} where view in "
                f"({', '.join(map(literal, views))}) group by 1 "
                f"having count(distinct view) = {len(views)})"
            )
    flags = ", ".join(f"{sql} as lacks_{i}" for i, sql in enumerate(conditions))
    any_lacks = " or ".join(f"lacks_{i}" for i in range(len(lacks)))
    con.execute(
        "create temp table _lacking as select annotation_id, slide, kind, x_l0, y_l0, "
        "status = 'ok' and slide_status = 'ok' as can_be_read, columns('lacks_.*') from (select *, "
        f"{flags} from ({PLACES.replace('$dataset', '?')})) where {any_lacks}",
        [dataset],
    )
    first = f"{DOWN_THE_SLIDES} limit {limit}" if limit is not None else ""
    con.execute("create temp view _readable as select * from _lacking where can_be_read")
    con.register(
        "_mine", pa.table({"slide": pa.array(_of_shard(con, dataset, shard), pa.string())})
    )
    mine = "" if shard is None else "semi join _mine using (slide)"
    con.execute(f"create temp table _todo as select * from _readable {mine} {first}")
    return lacks


def _of_shard(con: Any, dataset: str, shard: Shard | None) -> list[str]:
    """Return the slides of a shard: by how many annotations each has, done or not."""
    if shard is None:
        return []
    sql = "select slide, count(*) as n from annotations where dataset = $dataset group by 1"
    sizes = {r["slide"]: int(r["n"]) for r in fetch_rows(con, sql, {"dataset": dataset})}
    return shard.of(sizes)


def _portions(sizes: Mapping[str, int], least: int) -> Iterator[list[str]]:
    """Yield slides in their order, in portions that have `least` annotations or a slide more."""
    portion, n = list[str](), 0
    for slide, size in sizes.items():
        portion.append(slide)
        n += size
        if n >= least:
            yield portion
            portion, n = [], 0
    if portion:
        yield portion


def _n_vectors(con: Any, lacks: Lacks) -> dict[str, int]:
    """Return how many vectors each model lacks of what is to be embedded."""
    n_vectors = dict[str, int]()
    for name in dict.fromkeys(name for name, _ in lacks):
        own = {f"lacks_{i}": views for i, (of, views) in enumerate(lacks) if of == name}
        groups = fetch_rows(con, f"select {', '.join(own)}, count(*) as n from _todo group by all")
        n_vectors[name] = sum(
            g["n"]
            * len(embedded_views([v for flag, views in own.items() if g[flag] for v in views]))
            for g in groups
        )
    return n_vectors


def _source(con: Any, table: str, is_there: bool, schema: pa.Schema) -> str:
    """Return what SQL calls a table, an empty one where it is not there yet."""
    if not is_there:
        con.register(table, schema.empty_table())
    return identifier(table)


def _count_once(con: Any, name: str, have: str, flag: str, n_annotations: int) -> int:
    """Return how many annotations a model has; EmbedstoreError where it has one twice."""
    (counts,) = fetch_rows(
        con,
        f"select (select count(*) from {have}) as n, "
        f"(select count(*) from _lacking where {flag}) as n_lacking",
    )
    n, n_there = int(counts["n"]), n_annotations - int(counts["n_lacking"])
    if n > n_there:  # some are there twice, or of no annotation
        (counts,) = fetch_rows(con, f"select count(distinct annotation_id) as d from {have}")
        if n != counts["d"]:
            raise EmbedstoreError(
                f"the table of model {name} holds {n - counts['d']} annotations twice; "
                "it was not written by this tool alone, restore a copy or use --as NAME"
            )
    return n
