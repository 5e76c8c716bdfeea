"""The verb `add`: annotations and slides into the store."""

from embedstore.add.options import AddOptions
from embedstore.add.register import AddReport, add

__all__ = ["AddOptions", "AddReport", "add"]
