"""Commands in real processes that begin within milliseconds: forked from one that has imported."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.torture.preload"])

LIMIT = 240
"""Seconds after which a command counts as hanging."""


def _perform(words: list[str], env: dict[str, str], folder: Path) -> None:
    """Call what a console script calls; its output goes to files, `opened` is made with the store."""
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o666), stream.fileno())
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import cli
    from embedstore.store import Store

    real = Store.open

    def opened(uri: str, **how: bool) -> Store:
        (folder / "opened").touch()
        return real(uri, **how)

    Store.open = opened  # type: ignore[method-assign]
    sys.argv = words
    try:
        getattr(cli, words[0])()
    finally:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (folder / "peak").write_text(str(peak / 1024))


@dataclass
class Command:
    """A started command and where its output goes."""

    words: list[str]
    process: BaseProcess
    folder: Path
    started: float

    def wait_opened(self) -> bool:
        """Wait until it opens its store; return whether it does before it ends."""
        while self.process.is_alive():
            if (self.folder / "opened").exists():
                return True
            time.sleep(0.002)
        return (self.folder / "opened").exists()

    def wait(self) -> int:
        """Return its exit code, negative for a signal; AssertionError where it hangs."""
        self.process.join(LIMIT)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError(f"{self.words} hangs\n{self.err}")
        code = self.process.exitcode
        assert code is not None
        return code

    @property
    def out(self) -> str:
        """Return what it wrote to stdout."""
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        """Return what it wrote to stderr."""
        return (self.folder / "err").read_text()

    @property
    def peak_mb(self) -> float:
        """Return the most memory it held, in MB; infinite where it did not come to say so."""
        file = self.folder / "peak"
        return float(file.read_text()) if file.exists() else float("inf")

    def done(self) -> "Command":
        """Wait, and return itself; AssertionError where it fails, with what it said."""
        code = self.wait()
        assert code == 0, f"{self.words} ended with {code}:\n{self.err[-3000:]}"
        return self


_n = 0


def begin(words: Sequence[object], folder: Path, env: Mapping[str, str] | None = None) -> Command:
    """Start a command; folder is where its output may go."""
    global _n
    _n += 1
    mine = folder / f"process-{os.getpid()}-{_n}"
    mine.mkdir(parents=True)
    texts = list(map(str, words))
    # The process that forks has the environment of its own beginning.
    mine_of = {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "EMBEDSTORE_"))}
    process = _CONTEXT.Process(target=_perform, args=(texts, {**mine_of, **(env or {})}, mine))
    process.start()
    return Command(texts, process, mine, time.monotonic())


def same_words(words: Sequence[object]) -> str:
    """Return a command as one would type it, without its folders."""
    return " ".join(Path(str(w)).name if "/" in str(w) else str(w) for w in words)
