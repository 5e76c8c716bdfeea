"""The boundary to Ray: pieces of work spread over a cluster, done again where one is lost.

A worker is an actor with a node (or a GPU) to itself, made once and given one piece after the
other. A piece whose worker is lost with its node goes to another one: what a piece does must be
idempotent. Ray is brought in only where it is asked for.
"""

import contextlib
import os
import socket
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from embedstore.errors import EmbedstoreError, UsageError

ATTEMPTS = 4
"""How often a piece is begun before its losses are taken for its own fault."""

POLL_SECONDS = 0.5
STOP_SECONDS = 60.0
"""How long a worker has to store what it has, once it is told to stop."""


@dataclass(frozen=True)
class Cluster:
    """Where the work is spread: an address of Ray's, None for RAY_ADDRESS or else this machine.

    num_gpus: of a worker; None for one each where the cluster has any.
    """

    address: str | None = None
    num_gpus: float | None = None


class Worker(Protocol):
    """What does pieces of work on a node; made there."""

    def do(self, piece: Any, tell: Callable[[int], None]) -> Any:
        """Do a piece and return what came of it; tell(n) says how far it is.

        tell raises KeyboardInterrupt when it is time to stop. EmbedstoreError ends all.
        """
        ...


@dataclass(frozen=True)
class _Told:
    """What comes back of a piece: a value, or the words of an error."""

    value: Any = None
    error: str | None = None
    is_usage: bool = False
    is_stopped: bool = False


class _Host:
    """The actor that holds a worker; it answers while the worker works."""

    def __init__(self, make: Callable[..., Worker], args: tuple[Any, ...]) -> None:
        self._make, self._args = make, args
        self._worker: Worker | None = None
        self._moved, self._is_stopped = 0, False

    def ready(self) -> None:
        """Return once the actor is there."""

    def do(self, piece: Any) -> _Told:
        self._moved = 0
        try:
            if self._worker is None:
                self._worker = self._make(*self._args)
            return _Told(self._worker.do(piece, self._tell))
        except EmbedstoreError as e:
            return _Told(error=str(e), is_usage=isinstance(e, UsageError))
        except KeyboardInterrupt:
            return _Told(is_stopped=True)

    def moved(self) -> int:
        return self._moved

    def stop(self) -> None:
        self._is_stopped = True

    def _tell(self, n: int) -> None:
        self._moved = n
        if self._is_stopped:
            raise KeyboardInterrupt


def named(piece: Any) -> str:
    """Return a piece in words: the first of several things, and how many more."""
    parts = [str(p) for p in piece if p is not None] if isinstance(piece, tuple) else [str(piece)]
    return parts[0] if len(parts) == 1 else f"{parts[0]} and {len(parts) - 1} more"


def spread(
    make: Callable[..., Worker],
    args: tuple[Any, ...],
    pieces: Sequence[Hashable],
    cluster: Cluster,
    *,
    on_done: Callable[[Any, Any], None] = lambda piece, value: None,
    on_moved: Callable[[int], None] = lambda n: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> None:
    """Have workers, each made by make(*args) on its node, do every piece.

    on_done(piece, value) is called here as each comes back, on_moved(n) with the sum of what those
    under way have told, on_note with what a user should know. EmbedstoreError as a worker raised
    it, or where no cluster answers; KeyboardInterrupt once the workers have stopped.
    """
    if not pieces:
        return
    with _connected(cluster.address) as ray:
        _Spreading(ray, make, args, pieces, cluster, on_done, on_moved, on_note).run()


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as e:
        raise UsageError(
            "--engine ray needs Ray: pip install 'mitosis-embedstore[ray]' here and on every node"
        ) from e
    if ray.is_initialized():
        yield ray
        return
    named_address = address or os.environ.get("RAY_ADDRESS")
    try:
        _knock(named_address)
        with warnings.catch_warnings(action="ignore"):  # what it starts execs, and does not fork on
            ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as e:
        reason = str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__
        raise EmbedstoreError(
            f"no Ray cluster answers at {named_address or 'this machine'} ({reason}); "
            "start one with `ray start --head`, or name it with --ray-address HOST:PORT"
        ) from e
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Raise OSError where nobody listens: Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _slots(ray: Any, num_gpus: float | None) -> tuple[int, dict[str, float]]:
    """Return how many workers the cluster has room for, and what each of them takes."""
    nodes = [
        n["Resources"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1
    ]
    with_gpu = [n for n in nodes if n.get("GPU", 0) > 0]
    each = num_gpus if num_gpus is not None else float(bool(with_gpu))
    if each:
        rooms = [(int(n["GPU"] // each), n["CPU"]) for n in with_gpu if n["GPU"] >= each]
        if not rooms:
            raise EmbedstoreError(
                f"no node of the cluster has {each:g} GPUs for a worker; give --num-gpus 0 to "
                "work on processors"
            )
        cpus = max(1, int(min(cpu // n for n, cpu in rooms)))
        return sum(n for n, _ in rooms), {"num_cpus": cpus, "num_gpus": each}
    if not nodes:
        raise EmbedstoreError("the Ray cluster has no node with a CPU; add one, then run again")
    cpus = int(min(n["CPU"] for n in nodes))
    return sum(int(n["CPU"] // cpus) for n in nodes), {"num_cpus": cpus, "num_gpus": 0}


@dataclass
class _Spreading:
    """The pieces that wait, those under way, and the actors that are starting, at work or idle."""

    ray: Any
    make: Callable[..., Worker]
    args: tuple[Any, ...]
    pieces: Sequence[Hashable]
    cluster: Cluster
    on_done: Callable[[Any, Any], None]
    on_moved: Callable[[int], None]
    on_note: Callable[[str], None]
    doing: dict[Any, tuple[Any, Hashable]] = field(default_factory=dict)
    starting: dict[Any, Any] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    begun: Counter[Hashable] = field(default_factory=Counter)

    def run(self) -> None:
        self.waiting = deque(self.pieces)
        n, self.takes = _slots(self.ray, self.cluster.num_gpus)
        try:
            for _ in range(min(n, len(self.pieces))):
                self._start()
            while self.waiting or self.doing:
                while self.idle and self.waiting:
                    self._assign(self.idle.pop(), self.waiting.popleft())
                self._settle(POLL_SECONDS)
                self.on_moved(self._moved())
        except BaseException:
            self._stop()
            raise
        finally:
            for actor in (
                *self.idle,
                *self.starting.values(),
                *(a for a, _ in self.doing.values()),
            ):
                with contextlib.suppress(self.ray.exceptions.RayError):
                    self.ray.kill(actor)

    def _start(self) -> None:
        actor = (
            self.ray.remote(_Host)
            .options(**self.takes, max_concurrency=3, max_restarts=0)
            .remote(self.make, self.args)
        )
        self.starting[actor.ready.remote()] = actor

    def _assign(self, actor: Any, piece: Hashable) -> None:
        self.begun[piece] += 1
        if self.begun[piece] > ATTEMPTS:
            raise EmbedstoreError(
                f"the workers that had {named(piece)} were lost {ATTEMPTS} times; if a node has "
                "too little memory for one, lower --batch-size"
            )
        self.doing[actor.do.remote(piece)] = actor, piece

    def _settle(self, seconds: float) -> None:
        """Wait for something to happen, and take it in."""
        refs = [*self.doing, *self.starting]
        done, _ = self.ray.wait(refs, num_returns=1, timeout=seconds)
        for ref in done:
            if ref in self.starting:
                actor = self.starting.pop(ref)
                if self._get(ref) is not None:
                    self.idle.append(actor)
                continue
            actor, piece = self.doing.pop(ref)
            told = self._get(ref)
            if told is None:
                self.waiting.appendleft(piece)
                self.on_note(f"a worker was lost with its node; {named(piece)}: to another one")
                continue
            self.idle.append(actor)
            self._take(piece, told)

    def _get(self, ref: Any) -> Any:
        """Return what a call came to; None where its actor is lost, in whose place one starts."""
        try:
            value = self.ray.get(ref)
        except self.ray.exceptions.RayError as e:
            if isinstance(e, self.ray.exceptions.RayTaskError):
                raise  # a fault of the program, not of a node
            self._start()
            return None
        return _Told() if value is None else value

    def _take(self, piece: Hashable, told: _Told) -> None:
        if told.error is not None:
            raise (UsageError if told.is_usage else EmbedstoreError)(told.error)
        if not told.is_stopped:
            self.on_done(piece, told.value)

    def _moved(self) -> int:
        asked = [actor.moved.remote() for actor, _ in self.doing.values()]
        answered, _ = self.ray.wait(asked, num_returns=len(asked), timeout=1) if asked else ([], [])
        n = 0
        for ref in answered:
            with contextlib.suppress(self.ray.exceptions.RayError):
                n += self.ray.get(ref)
        return n

    def _stop(self) -> None:
        """Have workers store what they have, and take in what they have finished."""
        for actor, _ in self.doing.values():
            actor.stop.remote()
        until = time.monotonic() + STOP_SECONDS
        while self.doing and time.monotonic() < until:
            done, _ = self.ray.wait(list(self.doing), num_returns=1, timeout=1)
            for ref in done:
                _, piece = self.doing.pop(ref)
                with contextlib.suppress(self.ray.exceptions.RayError, EmbedstoreError):
                    self._take(piece, self.ray.get(ref))
