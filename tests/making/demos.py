"""The size of the demo that tests write."""

from typing import Any

SMALL: dict[str, Any] = {"n_slides_per_domain": 2, "n_annotations_per_slide": 12}
