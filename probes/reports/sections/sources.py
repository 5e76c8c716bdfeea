"""Where the numbers come from: manifests, weights, software, and the commands that repeat them."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from probes.reports.blocks import Block, Missing, Prose, Section, TableBlock
from probes.reports.data import Facts
from probes.reports.makers import Maker, Material
from probes.reports.repeat import command, flat, ingest_command, repeat_command
from probes.reports.tables import Column, Table
from probes.scores.recorded import ResultRow
from probes.scores.sides import Side
from probes.splits.recorded import SplitRow
from probes.splits.spec import ManifestSpec


def sources(material: Material) -> Section:
    """Return the section of what is needed to repeat every number."""
    facts = material.facts
    return Section(
        "sources",
        "Where the numbers come from",
        [*_manifests(facts), *_weights(facts), *_software(facts), *_commands(facts)],
    )


def _manifests(facts: Facts) -> list[Block]:
    by: dict[tuple[ManifestSpec, str], list[SplitRow]] = defaultdict(list)
    for s in facts.splits:
        by[ManifestSpec.of(s), s.manifest_id].append(s)
    if not by:
        first = facts.datasets[0].dataset
        return [Missing("No split is recorded.", command("probes", "split", first))]
    rows = [
        {
            "manifest_id": manifest,
            "dataset": c.dataset,
            "condition": str(c),
            "seed": c.seed,
            "folds": ", ".join(map(str, sorted({s.fold for s in splits}))),
            "fractions": ", ".join(f"{f:g}" for f in sorted({s.fraction for s in splits})),
            "n_runs": len({r.run_id for r in facts.results if r.manifest_id == manifest}),
            "n_older": facts.n_superseded.get(c, 0),
            "command": command("probes", "split", c.dataset, *flat(c.options)),
        }
        for (c, manifest), splits in by.items()
    ]
    columns = [
        Column("manifest_id", "manifest", code=True),
        Column("dataset", "dataset"),
        Column("condition", "split"),
        Column("folds", "folds"),
        Column("fractions", "fractions"),
        Column("seed", "seed", number=True),
        Column("n_runs", "runs", number=True),
    ]
    notes = ["A manifest\u2019s id is a digest of its annotations and of how they were split."]
    if any(r["n_older"] for r in rows):
        columns.append(Column("n_older", "older ones", number=True))
        notes.append(
            "Older manifests of the same split, from before the annotations changed or imported "
            "before, are in the store (view all_results) and not in this report."
        )
    return [TableBlock(Table("manifests", "Manifests", columns, rows, notes))]


def _weights(facts: Facts) -> list[Block]:
    by_weights: dict[tuple[str, str], dict[str, Any]] = {}
    for m in facts.models.values():
        by_weights[m.model, m.weights_sha256 or ""] = {
            "weights": m.weights,
            "versions": f"timm {m.timm_version}, torch {m.torch_version}" if m.timm_version else "",
            "used": "embedded",
        }
    for e in facts.sides:
        if e.is_e2e:
            unseen = {"weights": e.weights or None, "versions": "", "used": ""}
            row = by_weights.setdefault((e.model, e.weights_sha256), unseen)
            row["used"] = "embedded, end to end" if "embedded" in row["used"] else "end to end"
    if not by_weights:
        return []
    rows = [
        {"model": model, "weights_sha256": sha or None, **more}
        for (model, sha), more in by_weights.items()
    ]
    columns = [
        Column("model", "model"),
        Column("used", "use"),
        Column("weights", "weights", lambda r: r["weights"] or "not known (imported)"),
        Column("weights_sha256", "SHA-256", code=True),
        Column("versions", "made with"),
    ]
    return [TableBlock(Table("weights", "Weights", columns, rows))]


def _software(facts: Facts) -> list[Block]:
    kinds: dict[str, int] = defaultdict(int)
    for r in {r.run_id: r for r in facts.results}.values():
        kinds[r.software or "{}"] += 1
    said = [
        f"{n:,} runs with " + ", ".join(f"{k} {v}" for k, v in _versions(text).items())
        for text, n in sorted(kinds.items(), key=lambda kv: -kv[1])
    ]
    return [Prose("Software: " + "; ".join(said) + ".")] if said else []


def _versions(text: str) -> Mapping[str, Any]:
    try:
        versions = json.loads(text)
    except json.JSONDecodeError:
        return {"what they recorded:": text}
    return versions if isinstance(versions, dict) else {"what they recorded:": text}


def _commands(facts: Facts) -> list[Block]:
    """Return the commands in the order in which they repeat the report."""
    rows: list[dict[str, Any]] = []
    for d in facts.datasets:
        trained = {r.model for r in facts.results if r.dataset == d.dataset and r.method != "e2e"}
        for m in facts.models.values():
            if m.model in trained:
                rows.append(
                    {
                        "dataset": d.dataset,
                        "makes": f"embeddings of {m.model}",
                        "command": ingest_command(d.dataset, m),
                    }
                )
    every = [r for r in facts.results if r.metric == "auroc"]

    def kind(r: ResultRow) -> tuple[ManifestSpec, Side, str, str]:
        return ManifestSpec.of(r), Side.of(r), r.target, r.eval_dataset or ""

    # Fractions with the same folds and train domains share a command, which then makes no more.
    parts: dict[Any, set[tuple[int, str]]] = defaultdict(set)
    for r in every:
        parts[kind(r), r.fraction].add((r.fold, r.train_domain or ""))
    by: dict[Any, list[ResultRow]] = defaultdict(list)
    for r in every:
        by[kind(r), frozenset(parts[kind(r), r.fraction])].append(r)
    for ((c, e, target, elsewhere), _), of_command in by.items():
        what = f"{facts.names[e]}, {c}" + (f", target {target}" if target != "label" else "")
        what += f", scored on {elsewhere}" if elsewhere else ""
        domains = {s.train_domain for s in facts.splits if ManifestSpec.of(s) == c}
        whole = domains <= {r.train_domain for r in of_command}
        rows.append(
            {
                "dataset": c.dataset,
                "makes": what,
                "command": repeat_command(c, e, of_command, all_domains=whole),
            }
        )
    if not rows:
        return []
    columns = [
        Column("dataset", "dataset"),
        Column("makes", "makes"),
        Column("command", "command", code=True),
    ]
    notes = [
        "What a run has recorded is not made again; --force does. Weights that came from a "
        "file are named by the file; the table of weights has its SHA-256."
    ]
    return [TableBlock(Table("commands", "Commands", columns, rows, notes))]


SECTION = Maker(80, sources)
