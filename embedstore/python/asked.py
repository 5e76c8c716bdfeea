"""How what a call says becomes what the verbs take: one or several, places, a cluster."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from embedstore.cluster import Cluster
from embedstore.errors import UsageError
from embedstore.files.objects import Place, place
from embedstore.terminal.options import parse_bytes

T = TypeVar("T")
Many = str | Sequence[str] | None
"""One name, several, or none: the default of the verb."""


def many(value: Many) -> list[str] | None:
    """Return names as a list, each once; None for None."""
    if value is None:
        return None
    return [value] if isinstance(value, str) else list(dict.fromkeys(value))


def several(value: T | Sequence[T] | None) -> list[T] | None:
    """Return numbers as a list; None for None."""
    if value is None:
        return None
    return list(value) if isinstance(value, Sequence) else [value]


def place_of(named: str | Path) -> Place:
    """Return what a call names as a place: a local path or a URI."""
    return named if isinstance(named, Path) else place(named)


def cluster_of(engine: str, ray_address: str | None, num_gpus: float | None) -> Cluster | None:
    """Return the cluster, None for this process; UsageError where these contradict each other."""
    if engine == "ray":
        return Cluster(ray_address, num_gpus)
    if engine != "local":
        raise UsageError(f"unknown engine '{engine}'; allowed: local, ray")
    if ray_address is not None or num_gpus is not None:
        raise UsageError("ray_address and num_gpus are for engine='ray'")
    return None


def bytes_of(size: str | int | None) -> int | None:
    """Return a size such as '8GB' in bytes; a number is one already."""
    return parse_bytes(size) if isinstance(size, str) else size
