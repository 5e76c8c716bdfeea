"""Options that several commands share: what a manifest is cut from, and which of its splits."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Annotated

import typer

from embedstore.slides.patches import VIEW_SETS
from probes.methods.table import TARGETS
from probes.splits.draw import GROUPINGS, STRATA
from probes.splits.schemes import SCHEMES
from probes.splits.spec import MATCHED, Asked, ManifestSpec, spec_of

_MATCHED = [name.removesuffix(MATCHED) for name in SCHEMES if name.endswith(MATCHED)]
_SCHEMES = "; ".join(f"{n}: {s.about}" for n, s in SCHEMES.items() if not n.endswith(MATCHED))


def one_of(names: Iterable[str]) -> str:
    """Return names in words: 'a, b or c'."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


GroupOption = Annotated[
    str, typer.Option(help=f"{one_of(GROUPINGS)}: what stays on one side of a split.")
]
SeedOption = Annotated[int, typer.Option(min=0, max=2**62, help="Seed of the manifest.")]


@dataclass(frozen=True)
class ManifestOptions:
    """What a manifest is cut from, but for its dataset."""

    scheme: Annotated[str, typer.Option(help=f"{_SCHEMES}.")] = ManifestSpec.scheme
    group_by: GroupOption = ManifestSpec.group_by
    stratify: Annotated[str, typer.Option(help=f"{one_of(STRATA)}.")] = ManifestSpec.stratify
    size_matched: Annotated[
        bool,
        typer.Option(
            "--size-matched",
            help=f"With {one_of(_MATCHED)}: train every domain at the smallest one's size.",
        ),
    ] = False
    where: Annotated[str | None, typer.Option(help="SQL condition on the annotations view.")] = (
        ManifestSpec.where
    )
    seed: SeedOption = ManifestSpec.seed

    def spec(self, dataset: str) -> ManifestSpec:
        """Return it as the library takes it; UsageError where a scheme has no matched form."""
        return spec_of(dataset, **vars(self))


@dataclass(frozen=True)
class SplitOptions:
    """Which splits of a manifest."""

    fraction: Annotated[
        list[float] | None,
        typer.Option(help="Share of the training pool, in (0, 1]; repeatable; default: 1."),
    ] = None
    fold: Annotated[list[int] | None, typer.Option(min=0, help="Repeatable; default: 0-4.")] = None
    train_domain: Annotated[
        list[str] | None, typer.Option(help="By-domain schemes: only these; repeatable.")
    ] = None
    manifest: Annotated[
        str | None, typer.Option(help="Id of a recorded or imported manifest to use instead.")
    ] = None

    def asked(self, context: typer.Context) -> Asked:
        """Return it as the library takes it; context says which options the line names."""
        names = [f.name for f in fields(ManifestOptions)]
        sources = {n: context.get_parameter_source(n) for n in names}
        stated = {n for n, source in sources.items() if source and source.name == "COMMANDLINE"}
        stated |= {"scheme"} if "size_matched" in stated else set()
        return Asked(self.fraction, self.fold, self.train_domain, self.manifest, stated)


@dataclass(frozen=True)
class VectorOptions:
    """What probes learn of vectors, and which vectors: views, pools, corrected ones."""

    target: Annotated[
        str, typer.Option(help=f"{one_of(TARGETS)}: how much of that embeddings give away.")
    ] = TARGETS[0]
    views: Annotated[
        str | None,
        typer.Option(help=f"{one_of(VIEW_SETS)}: train on stored views and average over them."),
    ] = None
    pool: Annotated[
        str | None,
        typer.Option(
            help="best: beside each pool and field of a network, the one that is best on "
            "validation, chosen inside each split; METHOD+best:NETWORK in compare."
        ),
    ] = None
    correct: Annotated[
        str | None,
        typer.Option(
            help="KIND:COLUMN, a correction of embeddings fitted on training rows: centre, whiten "
            "or combat by slide, case, domain or scanner; METHOD+KIND-COLUMN:MODEL in compare."
        ),
    ] = None
    transductive: Annotated[
        bool,
        typer.Option(
            "--transductive",
            help="With --correct: groups that training has not seen are corrected by their own "
            "unlabelled rows. Reported apart.",
        ),
    ] = False
