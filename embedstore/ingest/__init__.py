"""The verb `ingest`: what is missing, embedded and stored batch by batch."""

from embedstore.ingest.missing import ingest
from embedstore.ingest.options import IngestOptions, IngestReport, Interrupted

__all__ = ["IngestOptions", "IngestReport", "Interrupted", "ingest"]
