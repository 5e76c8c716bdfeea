"""How many slides it takes to tell two models apart."""

import numpy as np
from scipy.stats import nct, t

from probes.scores.statistics import CONFIDENCE

POWER = 0.8
"""How often a true difference is to be found, where nothing else is asked for."""
MOST = 1_000_000
"""Of more slides than this nothing is said."""


def power_of(difference: float, error: float, n_groups: int, n: int) -> float:
    """Return how often a paired test of n slides finds a difference, at a level of 0.05.

    error is the standard error that n_groups slides gave: it falls with the root of their number.
    Student's t, non-central, as `paired` tests.
    """
    if n < 2 or error <= 0:
        return float("nan")
    shift = abs(difference) / (error * np.sqrt(n_groups / n))
    cut = t.ppf((1 + CONFIDENCE) / 2, n - 1)
    return float(nct.sf(cut, n - 1, shift) + nct.cdf(-cut, n - 1, shift))


def groups_needed(
    difference: float, error: float, n_groups: int, power: float = POWER
) -> int | None:
    """Return the smallest number of slides with which a difference is found that often.

    It takes the difference as true, which a pilot study does not know. None where there is nothing
    to reckon with (no difference, no error), and where it would take more than MOST.
    """
    if not (np.isfinite([difference, error]).all() and difference and error > 0):
        return None
    low, high = 1, 2
    while power_of(difference, error, n_groups, high) < power:
        low, high = high, 2 * high
        if high > 2 * MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(difference, error, n_groups, middle) < power:
            low = middle
        else:
            high = middle
    return high if high <= MOST else None
