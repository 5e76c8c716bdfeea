"""What a manifest is cut from: one class, and the only place of its defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedstore.errors import EmbedstoreError
from probes.splits.draw import GROUPINGS, STRATA
from probes.splits.schemes import SCHEMES


@dataclass(frozen=True)
class ManifestSpec:
    """What a manifest is cut from and how; together with the annotations it decides the digest."""

    dataset: str
    scheme: str = "monte-carlo"
    group_by: str = "annotation"
    stratify: str = "none"
    where: str | None = None
    seed: int = 42

    def check(self) -> None:
        """Raise EmbedstoreError naming every value that is not allowed."""
        allowed = {
            "scheme": tuple(SCHEMES),
            "group_by": GROUPINGS,
            "stratify": STRATA,
        }
        wrong = [
            f"--{name.replace('_', '-')} {getattr(self, name)} (allowed: {', '.join(values)})"
            for name, values in allowed.items()
            if getattr(self, name) not in values
        ]
        if wrong:
            raise EmbedstoreError("not known: " + "; ".join(wrong))


@dataclass(frozen=True)
class Condition:
    """How a dataset was split: results of one condition can stand side by side."""

    dataset: str
    scheme: str
    group_by: str
    stratify: str
    where_sql: str | None
    seed: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Condition":
        """Return the condition of a row of results or splits."""
        return cls(*(row[k] for k in cls.__dataclass_fields__))

    def __str__(self) -> str:
        """Return it in words, without the dataset; what is as usual is left out."""
        words = [self.scheme, f"by {self.group_by}"]
        words += ["stratified by label"] * (self.stratify == "label")
        words += [f"where {self.where_sql}"] if self.where_sql else []
        words += [f"seed {self.seed}"] if self.seed != 42 else []
        return ", ".join(words)

    @property
    def options(self) -> list[tuple[str, str]]:
        """Return the options of `probes split` and `run` that ask for it; usual ones left out."""
        matched = self.scheme.endswith("-size-matched")
        asked = {
            "--scheme": self.scheme.removesuffix("-size-matched"),
            "--group-by": self.group_by,
            "--stratify": self.stratify,
            "--where": self.where_sql or "",
            "--seed": str(self.seed),
        }
        usual = {
            "--scheme": "monte-carlo",
            "--group-by": "annotation",
            "--stratify": "none",
            "--where": "",
            "--seed": "42",
        }
        given = [(k, v) for k, v in asked.items() if v != usual[k]]
        return given + [("--size-matched", "")] * matched
