"""The verb `report`: what is recorded, as a page."""

from probes.reports.build import ABOUT, report

__all__ = ["ABOUT", "report"]
