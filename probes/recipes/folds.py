"""Splits that others drew, drawn again: rows as a manifest's file has them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = dict[str, Any]


def rows_of(
    ids: Sequence[str], fold: int, group_by: str, **roles: NDArray[np.intp]
) -> Iterator[Row]:
    """Yield a fold's rows: annotation_id, role, fold and group_by; roles are positions in ids."""
    for role, members in roles.items():
        for k in members.tolist():
            yield {"annotation_id": ids[k], "role": role, "fold": fold, "group_by": group_by}


def grouped_folds(
    labels: NDArray[np.str_], groups: NDArray[np.str_], n: int, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return n folds, positions within and without, groups whole and labels alike.

    scikit-learn's StratifiedGroupKFold with shuffle, which goes by how many of each label every
    group has, in the order of the groups' names: not by the order of the rows.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    drawn = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    split = drawn.split(np.zeros(len(labels)), labels, groups)
    return [(inside, outside) for inside, outside in split]
