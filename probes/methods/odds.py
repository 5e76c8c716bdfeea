"""Log-odds: what ranks annotations by label where probabilities are 0 or 1 to the last digit."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Floats = NDArray[np.float64]

TINY = 1e-6
"""Log-odds below which their mean over views is that of the mean probability to the last digit."""


def log_odds(logits: Floats, n_views: int = 1) -> Floats:
    """Return the log-odds of each label, float64 (n, K), for logits (n * n_views, K).

    They rank as the softmax does, its mean over the n_views rows of an annotation, but where that
    is 1 or 0 to the last digit, and as well where all logits are all but equal.
    """
    n_labels = logits.shape[1]
    others = [[j for j in range(n_labels) if j != k] for k in range(n_labels)]
    rest = np.column_stack([logsumexp(logits[:, o], axis=1) for o in others])
    odds = (logits - rest).reshape(-1, n_views, n_labels)
    if n_views == 1:
        return np.asarray(odds[:, 0])
    # log p and log (1 - p), each stable: the mean over views is one of probabilities.
    mean = logsumexp(-np.logaddexp(0, -odds), axis=1) - logsumexp(-np.logaddexp(0, odds), axis=1)
    return np.asarray(np.where(np.abs(odds).max(axis=1) < TINY, odds.mean(axis=1), mean))
