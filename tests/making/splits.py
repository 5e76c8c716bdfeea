"""Arguments of a plain draw."""

PLAIN = {"group_by": "annotation", "stratify": "none", "seed": 42}
