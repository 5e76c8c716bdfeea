"""The verb `doctor`: whether a store is whole, and what of it can be mended."""

from embedstore.doctor.finding import Finding
from embedstore.doctor.verb import examine, mend

__all__ = ["Finding", "examine", "mend"]
