"""Options that commands share, and how their values are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from embedstore.cluster import Cluster
from embedstore.errors import UsageError
from embedstore.files.objects import Place
from embedstore.files.targets import target

PLACE = "<path|URI>"
"""What an option is that takes a local path as well as s3://, gs:// or az://."""

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="EMBEDSTORE_URI",
        metavar=PLACE,
        help="The store: a folder, s3://..., gs://... or az://... .",
    ),
]


CacheOption = Annotated[
    bool,
    typer.Option(
        "--patch-cache/--no-patch-cache",
        help="Keep the patches read in the store, so that nothing reads them from slides again.",
    ),
]


JsonOption = Annotated[bool, typer.Option("--json", help="Print rows as JSON.")]


DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


DtypeOption = Annotated[
    str,
    typer.Option(help="Autocast dtype: float32, bfloat16, or auto for what is fast here."),
]


WorkersOption = Annotated[int | None, typer.Option(min=1, help="Threads that read patches.")]


class SqlFormat(StrEnum):
    """How rows are printed."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


MaxMemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="What this process may take, such as 8GB; more goes over the disk."
    ),
]

UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_bytes(text: str) -> int:
    """Return how many bytes a text such as 8GB, 500MB or 4GiB says; UsageError for another form."""
    number = text.strip().lower()
    unit = next((u for u in sorted(UNITS, key=len, reverse=True) if number.endswith(u)), "")
    try:
        value = float(number.removesuffix(unit)) * UNITS.get(unit, 1)
    except ValueError:
        value = -1
    if not 0 < value < 2**60:
        raise UsageError(f"--max-memory '{text}' is no size: give a number with MB, GB or GiB")
    return int(value)


OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there already.")
]


class Engine(StrEnum):
    """What does the work."""

    local = "local"
    ray = "ray"


@dataclass(frozen=True)
class EngineOptions:
    """Where the work is done."""

    engine: Annotated[
        Engine, typer.Option(help="local: this process; ray: workers on a Ray cluster.")
    ] = Engine.local
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="The cluster; default: RAY_ADDRESS, else this machine."
        ),
    ] = None
    num_gpus: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs of a worker; default: one where the cluster has any."),
    ] = None

    def cluster(self) -> Cluster | None:
        """Return the cluster, None for this process; a usage error where options contradict."""
        if self.engine is Engine.ray:
            return Cluster(self.ray_address, self.num_gpus)
        if self.ray_address is not None or self.num_gpus is not None:
            raise typer.BadParameter("is for --engine ray", param_hint="--ray-address, --num-gpus")
        return None


@dataclass(frozen=True)
class OutputOptions:
    """Where rows go, and how they are printed."""

    format: Annotated[SqlFormat, typer.Option(help="How rows are printed.")] = SqlFormat.table
    output: Annotated[
        str | None,
        typer.Option(metavar=PLACE, help="Write to a file; its ending decides the format."),
    ] = None
    overwrite: OverwriteOption = False

    def place(self) -> Place | None:
        """Return where rows go, None for stdout; UsageError where a file is there, unasked."""
        return None if self.output is None else target(self.output, overwrite=self.overwrite)


def pairs(values: Sequence[str] | None, option: str) -> dict[str, str]:
    """Return NAME=VALUE options as a dict; usage error for another form or a name given twice."""
    pairs: dict[str, str] = {}
    for value in values or ():
        # A label may hold "=", a path may too: the first one divides.
        name, equals, rest = value.partition("=")
        if not (name and equals and rest):
            raise typer.BadParameter(f"'{value}' is not of the form NAME=VALUE", param_hint=option)
        if pairs.setdefault(name, rest) != rest:
            raise typer.BadParameter(f"'{name}' is given twice", param_hint=option)
    return pairs


def rgb(text: str | None, option: str) -> tuple[float, float, float] | None:
    """Return R,G,B as three numbers; usage error for another form."""
    values = numbers(text, option)
    if values is None:
        return None
    if len(values) != 3:
        raise typer.BadParameter(f"'{text}' is not three numbers R,G,B", param_hint=option)
    return values[0], values[1], values[2]


def numbers(text: str | None, option: str) -> list[float] | None:
    """Return comma-separated numbers; usage error for anything else."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a list of numbers", param_hint=option) from None
