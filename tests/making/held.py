"""Commands held in the middle of their work, so that a signal meets them there.

However busy or fast the machine is, a held command cannot end before its test has sent the signal.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.making.commands import ROOT, outside

# What the process runs: the function is wrapped, its nth call that names `where` never returns.
_PROGRAM = """
import importlib, pathlib, signal, sys, time

# Started in the background of a shell, a process would not know of Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

module, name, where, n, mark, sys.argv = {module!r}, {name!r}, {where!r}, {n!r}, {mark!r}, {words!r}
sys.path.insert(0, {root!r})
for place, value in {settings!r}.items():
    setattr(importlib.import_module(place.split(":")[0]), place.split(":")[1], value)
*owners, last = name.split(".")
owner = importlib.import_module(module)
for part in owners:
    owner = getattr(owner, part)
real, calls = getattr(owner, last), 0


def held(*args, **kwargs):
    global calls
    result = real(*args, **kwargs)
    calls += where is None or where in args
    if calls == n:
        pathlib.Path(mark).touch()
        while True:
            time.sleep(1)
    return result


setattr(owner, last, held)
import cli

getattr(cli, sys.argv[0])()
"""


@dataclass(frozen=True)
class Hold:
    """Where a command stops: once `function` ("module:Class.name") returns from its nth call.

    Only calls with `where` among their positional arguments count, if it is given. settings are
    constants ("module:NAME") to begin with, so that little data is written in several parts.
    """

    function: str
    n: int = 1
    where: str | None = None
    settings: Mapping[str, int] = field(default_factory=dict)


FLUSH = {"embedstore.embeddings.writer:FLUSH_ROWS": 8}
"""An ingest writes after so few embeddings."""

TAKEN = "embedstore.embeddings.writer:Writer.flush_if_due"
"""What an ingest calls with each batch of vectors, in the thread that a Ctrl-C meets."""

MERGE = "embedstore.store.store:Store.merge"
"""The function by which every command writes: held there, what it wrote is committed."""


def start_held(
    words: Sequence[object], hold: Hold, mark: Path, **options: Any
) -> subprocess.Popen[Any]:
    """Start a console script that holds, and return it once it does; mark is a file to be made.

    AssertionError where it ends before.
    """
    module, name = hold.function.split(":")
    program = _PROGRAM.format(
        module=module,
        name=name,
        where=hold.where,
        n=hold.n,
        mark=str(mark),
        words=[str(w) for w in words],
        root=str(ROOT),
        settings=dict(hold.settings),
    )
    process = subprocess.Popen([sys.executable, "-c", program], **({"env": outside()} | options))
    while not mark.exists():
        assert process.poll() is None, f"{words[0]} ended before it was held: {process.returncode}"
        time.sleep(0.02)
    mark.unlink()
    return process
