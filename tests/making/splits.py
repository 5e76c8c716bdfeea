"""Arguments of a plain draw."""

from typing import Any

PLAIN: dict[str, Any] = {"group_by": "annotation", "stratify": "none", "seed": 42}
