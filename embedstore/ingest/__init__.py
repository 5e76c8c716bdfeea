"""The verb `ingest`: what is missing, embedded and stored batch by batch."""

from embedstore.embed import Waited
from embedstore.ingest.missing import ingest
from embedstore.ingest.options import (
    IngestOptions,
    IngestReport,
    Interrupted,
    OnProgress,
    Shard,
)

__all__ = [
    "IngestOptions",
    "IngestReport",
    "Interrupted",
    "OnProgress",
    "Shard",
    "Waited",
    "ingest",
]
