"""The commands that fill a section or repeat a result, quoted for a shell."""

import json
import shlex
from collections.abc import Sequence

from embedstore.embeddings.identity import model_words
from embedstore.models.pools import split_name
from embedstore.models.registry import REGISTRY
from embedstore.store.records import ModelRow
from probes.scores.recorded import ResultRow
from probes.scores.sides import Side
from probes.splits.spec import ManifestSpec

_NOT_OPTIONS = {"flip", "adapt"}


def command(*words: str) -> str:
    """Return words as one line that a shell reads as they are."""
    return shlex.join(words)


def run_command(c: ManifestSpec, *options: str) -> str:
    """Return the `probes run` of a condition, with more options."""
    return command("probes", "run", c.dataset, *flat(c.options), *options)


def flat(options: Sequence[tuple[str, str]]) -> list[str]:
    """Return options and their values as words; a flag has an empty value."""
    return [w for k, v in options for w in ((k, v) if v else (k,))]


def repeat_command(
    c: ManifestSpec, e: Side, rows: Sequence[ResultRow], *, all_domains: bool
) -> str:
    """Return the command that makes these results of one condition, side, target and dataset.

    all_domains: whether they are of every train domain that the condition has.
    """
    fractions = sorted({r.fraction for r in rows})
    folds = sorted({r.fold for r in rows})
    domains = sorted({r.train_domain for r in rows if r.train_domain is not None})
    options = [("--fraction", _number(f)) for f in fractions if fractions != [1.0]]
    options += [("--fold", str(f)) for f in folds if folds != list(range(5))]
    options += [("--train-domain", d) for d in domains if not all_domains]
    if e.is_e2e:
        return command("e2e", "run", c.dataset, *flat([*_recipe(e), *c.options, *options]))
    options += [("--target", r) for r in {r.target for r in rows} - {"label"}]
    options += [("--views", e.views)] if e.views else []
    options += [("--pool", e.pool)] if e.pool else []
    params = json.loads(e.params)
    options += [("--correct", params["correct"])] if e.correction else []
    options += [("--transductive", "")] if e.is_transductive else []
    options += [
        ("--eval-dataset", d)
        for d in sorted({r.eval_dataset for r in rows if r.eval_dataset is not None})
    ]
    who = [("--model", e.model), ("--method", e.method)]
    return command("probes", "run", c.dataset, *flat([*who, *c.options, *options]))


def _recipe(e: Side) -> list[tuple[str, str]]:
    """Return the options of `e2e run` that say how a side was trained."""
    params = json.loads(e.params)
    options = [("--backbone", e.model)]
    options += [("--weights", e.weights)] if _is_given(e.weights) else []
    options += [("--adapt", str(params["adapt"]))] if params.get("adapt", "full") != "full" else []
    options += [("--no-flip", "")] if params.get("flip") is False else []
    said = {
        k: v for k, v in params.items() if k not in _NOT_OPTIONS and not (v is None or v is False)
    }
    return options + [
        (f"--{k.replace('_', '-')}", "" if v is True else f"{v}")
        for k, v in said.items()
        if v is not None and v is not False
    ]


def ingest_command(dataset: str, model: ModelRow) -> str:
    """Return the command that makes a model's embeddings of a dataset."""
    name, origin = model.model, model.registry_name or model.model
    if model.arch == "imported":
        return command("embedstore", "import", dataset, "FILE", "--model", name)
    words = ["embedstore", "ingest", dataset, "--model", *model_words(name, model)]
    if _is_given(model.weights or ""):
        words += ["--weights", f"{origin}={model.weights}"]
    words += ["--patch-px", str(model.patch_px)] if model.patch_px not in (None, 224) else []
    if split_name(name) is None:  # else it says both itself
        usual = REGISTRY[origin].pooling if origin in REGISTRY else "timm"
        words += ["--pooling", model.pooling] if model.pooling not in (None, usual) else []
        words += ["--mpp-out", str(model.mpp_out)] if model.mpp_out not in (None, 0.25) else []
    words += ["--dtype", model.dtype] if model.dtype else []
    return command(*words)


def _is_given(weights: str) -> bool:
    """Return whether weights are not a model's usual ones: a file's name, or random."""
    return bool(weights) and "@" not in weights and not weights.startswith("package:")


def _number(value: float) -> str:
    """Return a number as short as it reads back the same."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
