"""What is on record of a split: the columns of the view `splits`."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SplitRow:
    """One split as recorded, without its annotations.

    shared_slides, shared_cases, overlapping_patches and shared_centres are shares of the test
    annotations, None where they are not known: see `audit`; patch_um is how wide its patches were.
    """

    split_id: str
    manifest_id: str
    dataset: str
    scheme: str
    group_by: str
    stratify: str
    where_sql: str | None
    seed: int
    fold: int
    fraction: float
    train_domain: str | None
    val_by: str
    n_train: int
    n_val: int
    n_test: int
    shared_slides: float | None
    shared_cases: float | None
    overlapping_patches: float | None
    shared_centres: float | None
    patch_um: float | None
    created_at: datetime
