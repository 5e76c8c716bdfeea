"""The verb `ingest`: what is missing, embedded and stored batch by batch."""

from embedstore.ingest.missing import IngestOptions, IngestReport, Interrupted, ingest

__all__ = ["IngestOptions", "IngestReport", "Interrupted", "ingest"]
