"""What a notebook waits for: a frame of all vectors beside NumPy's copy, and the import.

Runs alone: fills a store with 100,000 embeddings of 768 numbers. Floor: ndarray.copy() of as many.
Frame: the DataFrame made of loaded vectors. Whole: from the store on disk to the DataFrame. Raw:
the same vectors read by Lance alone into an Arrow table. Import: `import embedstore, probes` beside
a bare Python, each a process. Prints medians and ratios; --json FILE writes them; --quick is a
small smoke version.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_slices import fill, seconds

from embedstore import Store
from embedstore.store.layout import model_table


def process(code: str) -> float:
    """Return the time that a new Python takes for a line of code."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def measure(store: Store, repeats: int) -> dict[str, Any]:
    """Return the median seconds of each, and ratios to the floor."""
    embeddings = store.embeddings("m")
    table = store.open().lance(model_table("m"))
    works: dict[str, Callable[[], Any]] = {
        "floor": lambda: embeddings.X.copy(),
        "frame": lambda: embeddings.to_pandas(),
        "raw": lambda: table.to_table(columns=["vector"]),
        "whole": lambda: store.embeddings("m").to_pandas(),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):  # in turns, so that a busy moment strikes all
        for name, work in works.items():
            times[name].append(seconds(work))
    bare = statistics.median(process("pass") for _ in range(repeats))
    imported = statistics.median(process("import embedstore, probes") for _ in range(repeats))
    medians = {name: statistics.median(t) for name, t in times.items()}
    return {
        "shape": embeddings.X.shape,
        **medians,
        "ratio_frame": medians["frame"] / medians["floor"],
        "ratio_raw": medians["raw"] / medians["floor"],
        "ratio_whole": medians["whole"] / medians["floor"],
        "import": imported - bare,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    n, dim, repeats = (2_000, 64, 3) if asked.quick else (100_000, 768, 9)
    with tempfile.TemporaryDirectory() as folder:
        uri = str(Path(folder) / "store")
        fill(uri, n, dim)
        found = measure(Store(uri), repeats)
    for name, value in found.items():
        print(f"{name:12} {value if isinstance(value, tuple) else f'{value:.4f}'}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
