"""How much is tried, by which seed, and what came out: the table that `make torture` prints."""

import os
import random
import zlib
from dataclasses import dataclass

IS_FULL = os.environ.get("TORTURE") == "full"
"""Whether all is tried, or the short part that is in `make test`."""

SEED = int(
    os.environ.get("TORTURE_SEED") or (random.SystemRandom().randrange(10**6) if IS_FULL else 1)
)
"""What every choice follows from: fixed in `make test`, drawn and printed by `make torture`."""

os.environ["TORTURE_SEED"] = str(SEED)  # workers of the suite have the same one


def chance(*names: object) -> random.Random:
    """Return the source of choices of a case, the same again for the same seed."""
    return random.Random(zlib.crc32(f"{SEED} {names}".encode()))


def amount(short: int, full: int) -> int:
    """Return how many are tried."""
    return full if IS_FULL else short


@dataclass
class Tally:
    """What a test tried and how often it came out right, under the name of its row."""

    row: str
    tried: int = 0
    survived: int = 0
    what: str = ""

    def count(self, survived: bool = True) -> None:
        """Count one try."""
        self.tried += 1
        self.survived += survived
