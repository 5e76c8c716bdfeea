"""What a manifest is cut from, and which of its splits: the only place of their defaults."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from embedstore.errors import UsageError, nearest

MATCHED = "-size-matched"
"""How the name of a scheme ends that trains every domain at the smallest one's size."""


class _HasSpec(Protocol):
    """What a row is that says what its manifest was cut from."""

    @property
    def dataset(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def group_by(self) -> str: ...
    @property
    def stratify(self) -> str: ...
    @property
    def where_sql(self) -> str | None: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class ManifestSpec:
    """What a manifest is cut from and how; together with the annotations it decides the digest.

    Results of one spec can stand side by side.
    """

    dataset: str
    scheme: str = "monte-carlo"
    group_by: str = "annotation"
    stratify: str = "none"
    where: str | None = None
    seed: int = 42

    @classmethod
    def of(cls, row: "_HasSpec") -> "ManifestSpec":
        """Return the spec of a row of results or splits."""
        return cls(**{name: getattr(row, column) for name, column in _COLUMNS.items()})

    def check(self) -> None:
        """Raise EmbedstoreError naming every value that is not allowed."""
        from probes.splits.draw import GROUPINGS, STRATA
        from probes.splits.schemes import SCHEMES

        allowed = {"scheme": tuple(SCHEMES), "group_by": GROUPINGS, "stratify": STRATA}
        wrong = [
            f"--{name.replace('_', '-')} {getattr(self, name)} (allowed: {', '.join(values)})"
            f"{nearest(getattr(self, name), values)}"
            for name, values in allowed.items()
            if getattr(self, name) not in values
        ]
        if wrong:
            raise UsageError("not known: " + "; ".join(wrong))

    def row(self) -> dict[str, Any]:
        """Return its columns in splits, results and comparisons."""
        values = {column: getattr(self, name) for name, column in _COLUMNS.items()}
        return values | {"where_sql": self.where and self.where.strip()}

    def condition(self) -> tuple[str, dict[str, Any]]:
        """Return a SQL condition on those columns, and its parameters."""
        row = self.row()
        return " and ".join(f"{c} is not distinct from ${c}" for c in row), row

    def is_usual_but(self, *names: str) -> bool:
        """Return whether all but the dataset and these fields are as they are by default."""
        usual = ManifestSpec(self.dataset)
        return all(
            f.name in names or getattr(self, f.name) == getattr(usual, f.name) for f in fields(self)
        )

    def words(self, *without: str) -> str:
        """Return it in words, without the dataset; what is as usual is left out.

        The scheme and the grouping are always named, unless `without` holds the field's name.
        """
        usual = ManifestSpec(self.dataset)
        said = {
            "scheme": self.scheme,
            "group_by": f"by {self.group_by}",
            "stratify": f"stratified by {self.stratify}" * (self.stratify != usual.stratify),
            "where": f"where {self.where}" if self.where else "",
            "seed": f"seed {self.seed}" * (self.seed != usual.seed),
        }
        return ", ".join(text for name, text in said.items() if text and name not in without)

    def __str__(self) -> str:
        """Return it in words: see `words`."""
        return self.words()

    @property
    def options(self) -> list[tuple[str, str]]:
        """Return the options of `probes split` and `run` that ask for it; usual ones left out."""
        matched = self.scheme.endswith(MATCHED)
        values = vars(self) | {"scheme": self.scheme.removesuffix(MATCHED)}
        usual = vars(ManifestSpec(self.dataset))
        given = [
            (f"--{name.replace('_', '-')}", str(value))
            for name, value in values.items()
            if value != usual[name] and value is not None
        ]
        return given + [("--size-matched", "")] * matched


def spec_of(
    dataset: str,
    scheme: str,
    group_by: str,
    stratify: str,
    where: str | None,
    seed: int,
    *,
    size_matched: bool,
) -> ManifestSpec:
    """Return the spec of what a user says; UsageError where a scheme has no size-matched form."""
    from probes.splits.schemes import SCHEMES

    if size_matched and f"{scheme}{MATCHED}" not in SCHEMES:
        able = [name.removesuffix(MATCHED) for name in SCHEMES if name.endswith(MATCHED)]
        raise UsageError(f"--size-matched goes with --scheme {' or '.join(able)}")
    named = f"{scheme}{MATCHED}" if size_matched else scheme
    return ManifestSpec(dataset, named, group_by, stratify, where, seed)


_COLUMNS = {f.name: {"where": "where_sql"}.get(f.name, f.name) for f in fields(ManifestSpec)}


@dataclass(frozen=True)
class Asked:
    """Which splits of a manifest are asked for.

    fractions None: the fraction 1; folds None: the first five; train_domains None: all. manifest is
    the id of a recorded one to use in place of what the spec makes: None then stands for all of its
    splits. stated: the fields of the spec that were stated, which must be those of that manifest;
    None: those that are not as usual.
    """

    fractions: Sequence[float] | None = None
    folds: Sequence[int] | None = None
    train_domains: Sequence[str] | None = None
    manifest: str | None = None
    stated: Collection[str] | None = None

    def check(self, spec: ManifestSpec, recorded: ManifestSpec) -> None:
        """Raise UsageError where what was stated beside a manifest's id is not what it is."""
        usual = ManifestSpec(spec.dataset)
        names = [f.name for f in fields(spec) if f.name != "dataset"]
        if self.stated is None:
            stated = [n for n in names if getattr(spec, n) != getattr(usual, n)]
        else:
            stated = [n for n in names if n in self.stated]
        wrong = [n for n in stated if getattr(spec, n) != getattr(recorded, n)]
        if wrong:
            said = ", ".join(f"--{n.replace('_', '-')} {getattr(spec, n)}" for n in wrong)
            has = ", ".join(f"{n.replace('_', '-')} {getattr(recorded, n)}" for n in wrong)
            raise UsageError(
                f"{said} contradicts --manifest {self.manifest}, which has {has}; leave out one of "
                "the two"
            )
