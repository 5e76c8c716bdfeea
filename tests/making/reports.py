"""What a report's tables hold."""

import csv
import io
from pathlib import Path
from typing import Any


def table(written: dict[str, Path], name: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(written[f"{name}.csv"].read_text())))
