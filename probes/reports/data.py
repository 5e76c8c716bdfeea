"""What the report is made of: recorded results by condition and side, asked of the store once."""

import functools
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from embedstore.demo.domains import DOMAINS
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.records import DatasetRow, ModelRow, fetch_records
from embedstore.store.sql import check_dataset, connect, fetch, fetch_rows, literal
from probes.recipes.ganz2025 import paper_dataset
from probes.scores.recorded import ComparisonRow, ResultRow
from probes.scores.results import Summary, summarise
from probes.scores.sides import Side
from probes.splits.recorded import SplitRow
from probes.splits.spec import ManifestSpec
from probes.studies.measures import made_of


@dataclass(frozen=True)
class Facts:
    """All that is recorded of the reported datasets.

    embedded: the models that have embeddings of any dataset; results: of each condition's newest
    manifest; n_superseded counts older manifests by condition; left_alone: models side by side that
    `probes fusion` tried and did not take.
    """

    store: Store
    con: Any
    datasets: Sequence[DatasetRow]
    domains: Mapping[str, Sequence[str]]
    labels: Mapping[str, Sequence[str]]
    models: Mapping[str, ModelRow]
    embedded: Set[str]
    results: Sequence[ResultRow]
    splits: Sequence[SplitRow]
    comparisons: Sequence[ComparisonRow]
    n_superseded: Mapping[ManifestSpec, int]
    left_alone: Set[str] = frozenset()
    _digests: dict[str, str] = field(default_factory=dict)

    def digest(self, dataset: str) -> str:
        """Return the digest of a dataset's annotations as they are now, made once."""
        if dataset not in self._digests:
            self._digests[dataset] = made_of(self.store, dataset)
        return self._digests[dataset]

    def is_shown(self, side: Side) -> bool:
        """Return whether a side stands among the others.

        What is corrected, or was tried in a fusion and left, has sections of its own.
        """
        return not side.correction and side.model not in self.left_alone

    @functools.cached_property
    def _every_side(self) -> list[Side]:
        newest = sorted(self.results, key=lambda r: r.created_at, reverse=True)
        seen = dict.fromkeys(Side.of(r) for r in newest)  # one side is called as in its last run
        return sorted(seen, key=lambda e: (e.is_e2e, e.model, e.method, e.params, e.weights_sha256))

    @functools.cached_property
    def sides(self) -> list[Side]:
        """Every side that is shown and has a result, probes by model first, end to end last."""
        return [e for e in self._every_side if self.is_shown(e)]

    @functools.cached_property
    def names(self) -> dict[Side, str]:
        """What each side, shown or not, is called: as short as tells it from all others."""
        methods = {e.method for e in self.sides if not e.is_e2e}
        short = {e: _short_name(e, len(methods) > 1) for e in self._every_side}
        same: dict[str, list[Side]] = defaultdict(list)
        for e, name in short.items():
            same[name].append(e)
        return {
            e: name + ("" if len(same[name]) == 1 else f" [{_distinct(e, same[name])}]")
            for e, name in short.items()
        }

    def is_demo(self, dataset: str) -> bool:
        """Return whether a dataset is the generated one of `embedstore demo`."""
        made = {d.name for d in DOMAINS}
        domains = {re.sub("[-_]", " ", d) for d in self.domains[dataset]}
        return bool(domains) and domains <= made

    def about(self, dataset: str) -> str:
        """Return what a heading must say of a dataset beside its name, "" if nothing."""
        if self.is_demo(dataset):
            return "demonstration data, not tissue"
        return "" if paper_dataset(dataset) else "not the paper's data"

    @functools.cached_property
    def _by_condition(self) -> dict[tuple[ManifestSpec, str, str | None], list[ResultRow]]:
        by_condition = defaultdict(list)
        for r in self.results:
            if self.is_shown(Side.of(r)):
                by_condition[ManifestSpec.of(r), r.target, r.eval_dataset].append(r)
        return dict(by_condition)

    def conditions(
        self, dataset: str, *, by_domain: bool, target: str = "label"
    ) -> list[ManifestSpec]:
        """Return the conditions of a dataset that have results, those as in the paper first."""
        conditions = [
            c
            for (c, of, elsewhere), rows in self._by_condition.items()
            if c.dataset == dataset
            and of == target
            and elsewhere is None
            and (rows[0].train_domain is not None) == by_domain
        ]
        usual = ManifestSpec(dataset)
        return sorted(
            conditions,
            key=lambda c: (
                c.group_by != usual.group_by,
                c.stratify != usual.stratify,
                c.where or "",
                c.seed != usual.seed,
                str(c),
            ),
        )

    def elsewhere(self, dataset: str) -> list[tuple[ManifestSpec, str, list[ResultRow]]]:
        """Return the rows of runs of a dataset that score another one, by condition and dataset."""
        return [
            (c, other, rows)
            for (c, target, other), rows in self._by_condition.items()
            if c.dataset == dataset and target == "label" and other is not None
        ]

    @functools.cached_property
    def _compared(self) -> dict[tuple[str, ...], ComparisonRow]:
        return {(r.a, r.b, r.eval_domain, *r.run_ids): r for r in self.comparisons}

    def comparison(
        self, a: str, b: str, where: str, rows: Sequence[ResultRow]
    ) -> ComparisonRow | None:
        """Return the recorded comparison of a less b made of just these rows' runs, None if none.

        One of b less a is turned round; one that is older than a run does not count.
        """
        ids = sorted({r.run_id for r in rows})
        ran = max(r.created_at for r in rows)
        for one, two, sign in ((a, b, 1), (b, a, -1)):
            compared = self._compared.get((one, two, where, *ids))
            if compared and compared.created_at > ran:
                if sign == 1 or compared.ci_low is None or compared.ci_high is None:
                    return compared
                return replace(compared, ci_low=-compared.ci_high, ci_high=-compared.ci_low)
        return None

    def corrected(self, dataset: str) -> list[tuple[ManifestSpec, list[ResultRow]]]:
        """Return the AUROC of runs on corrected embeddings, transductive ones too, by condition."""
        rows = defaultdict(list)
        for r in self.results:
            own = r.dataset == dataset and r.metric == "auroc" and r.eval_dataset is None
            if own and r.target == "label" and Side.of(r).correction:
                rows[ManifestSpec.of(r)].append(r)
        return list(rows.items())

    def rows(self, c: ManifestSpec, metric: str, target: str = "label") -> list[ResultRow]:
        """Return the rows of a condition's results on its own dataset."""
        return [r for r in self._by_condition.get((c, target, None), []) if r.metric == metric]


def by_side(rows: Sequence[ResultRow]) -> dict[Side, list[ResultRow]]:
    """Return rows of results by side."""
    of_side = defaultdict(list)
    for r in rows:
        of_side[Side.of(r)].append(r)
    return dict(of_side)


def _values(counts: Sequence[Mapping[str, Any]], dataset: str, column: str) -> list[str]:
    return list(dict.fromkeys(c[column] for c in counts if c["dataset"] == dataset))


def gather(store: Store, datasets: Sequence[str]) -> Facts:
    """Return what is recorded of these datasets, of all where none is named.

    EmbedstoreError for a dataset that is not there, and where there is none at all.
    """
    con = connect(store)
    for name in datasets:
        check_dataset(store, con, name)
    registered = fetch_records(con, DatasetRow, "from datasets order by dataset")
    if not registered:
        raise EmbedstoreError(f"{store.uri} holds no dataset; `embedstore add` registers one")
    chosen = [d for d in registered if not datasets or d.dataset in datasets]
    names = ", ".join(literal(d.dataset) for d in chosen)
    counts = fetch_rows(
        con,
        "select dataset, domain, label, count(*) as n from annotations where "
        f"dataset in ({names}) group by all order by all",
    )
    splits = fetch_records(
        con,
        SplitRow,
        f"from splits where dataset in ({names}) "
        "order by dataset, scheme, group_by, fraction, train_domain, fold",
    )
    ids = fetch(con, "select distinct manifest_id from results")["manifest_id"].to_pylist()
    newest, older = _newest(splits, set(ids))
    con.register("_shown", fetch(con, f"select unnest({_sql_list(newest)}) as manifest_id"))
    results = fetch_records(
        con,
        ResultRow,
        "from results join _shown using (manifest_id) "
        "order by model, method, params, fraction, fold, train_domain, eval_domain, metric",
    )
    models = fetch_records(con, ModelRow, "from models order by model")
    embedded = fetch(con, "select distinct model from embeddings")["model"].to_pylist()
    return Facts(
        store,
        con,
        chosen,
        {d.dataset: _values(counts, d.dataset, "domain") for d in chosen},
        {d.dataset: sorted(_values(counts, d.dataset, "label")) for d in chosen},
        {m.model: m for m in models},
        frozenset(embedded),
        results,
        [s for s in splits if s.manifest_id in newest],
        fetch_records(
            con,
            ComparisonRow,
            "from comparisons join _shown using (manifest_id) where metric = 'auroc' "
            "and train_domain is null",
        ),
        older,
        _left_alone(con, {m.model for m in models}),
    )


def _left_alone(con: Any, models: Set[str]) -> frozenset[str]:
    """Return the fusions of datasets where `probes fusion` was asked that it did not take."""
    taken = fetch(con, "select model from measures where study = 'fusion' and model is not null")
    tried = fetch(
        con,
        "select distinct model from results where dataset in (select dataset from measures where "
        "study = 'fusion') and method != 'e2e'",
    )
    return frozenset(tried["model"].to_pylist()) - set(taken["model"].to_pylist()) - models


def _sql_list(names: Sequence[str]) -> str:
    return "[" + ", ".join(literal(n) for n in names) + "]::varchar[]"


def _newest(
    splits: Sequence[SplitRow], scored: set[str]
) -> tuple[list[str], dict[ManifestSpec, int]]:
    """Return the newest manifest of each condition, and how many older ones each has.

    One with results goes before one that has none yet.
    """
    made: dict[ManifestSpec, dict[str, Any]] = defaultdict(dict)
    for s in splits:
        of_spec = made[ManifestSpec.of(s)]
        of_spec[s.manifest_id] = max(s.created_at, of_spec.get(s.manifest_id, s.created_at))
    newest = [max(ids, key=lambda i: (i in scored, ids[i], i)) for ids in made.values()]
    return newest, {c: len(ids) - 1 for c, ids in made.items() if len(ids) > 1}


def _short_name(e: Side, with_method: bool) -> str:
    said = ["end to end"] if e.is_e2e else [e.method] if with_method else []
    said += [f"{e.views} views"] if e.views else []
    said += [f"{e.pool} pool"] if e.pool else []
    said += [e.correction] if e.correction else []
    said += e.extras
    said += ["random weights"] if e.is_random else []
    return e.model + (f" ({', '.join(said)})" if said else "")


def _distinct(e: Side, others: Sequence[Side]) -> str:
    """Return what sets a side apart from those of the same name."""
    each = [json.loads(o.params) for o in others]
    keys = sorted({k for p in each for k in p if len({repr(q.get(k)) for q in each}) > 1})
    said = [f"{k} {json.loads(e.params).get(k)}" for k in keys]
    if len({o.weights_sha256 for o in others}) > 1:
        said.append(f"weights {e.weights_sha256[:8] or 'imported'}")
    return ", ".join(said)


def summaries(facts: Facts, c: ManifestSpec, metric: str = "auroc") -> dict[Side, list[Summary]]:
    """Return what a condition's runs reached in a metric, by who competes."""
    return {e: summarise(rows, metric) for e, rows in by_side(facts.rows(c, metric)).items()}
