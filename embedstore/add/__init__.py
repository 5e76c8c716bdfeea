"""The verb `add`: annotations and slides into the store."""

from embedstore.add.register import AddOptions, AddReport, add

__all__ = ["AddOptions", "AddReport", "add"]
