"""The verb `report`: what is recorded, as a page."""

from probes.report.build import ABOUT, report

__all__ = ["ABOUT", "report"]
