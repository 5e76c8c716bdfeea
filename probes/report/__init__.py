"""The verb `report`: what is recorded, as a page."""

from probes.report.build import INDEX, report

__all__ = ["INDEX", "report"]
