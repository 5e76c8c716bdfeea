"""The verb `report`: what is recorded, as a page."""

from probes.report.build import report

__all__ = ["report"]
