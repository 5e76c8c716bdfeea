#!/usr/bin/env bash
# What `make release` tries with an installed wheel and nothing else, in a folder that it makes:
# vectors from anywhere to an answer, a demonstration to a report, without a network.
set -euo pipefail
mkdir -p "$1" && cd "$1"
unset EMBEDSTORE_URI PYTHONPATH
export HF_HUB_OFFLINE=1
python - <<'PY'
import numpy as np, pandas as pd
rng = np.random.default_rng(0)
y = rng.random(240) < 0.5
x = rng.normal(size=(240, 16)); x[:, 0] += 2 * y
ids = [f"c{n}" for n in range(240)]
pd.DataFrame({"id": ids, "vector": list(x.astype("float32"))}).to_parquet("vectors.parquet")
pd.DataFrame({"id": ids, "label": np.where(y, "mitotic figure", "other"),
              "case": [f"p{n % 12}" for n in range(240)]}).to_csv("cells.csv", index=False)
PY
embedstore --version
probes evaluate vectors.parquet --labels cells.csv --group-by case --store own 2>&1 | tail -1
python -c "
from embedstore import Store
from pathlib import Path
import importlib.util as u
assert 'site-packages' in u.find_spec('embedstore').origin
rows = Store('own').sql('select count(*) as n from results')
assert rows['n'][0] > 0
for extra in ('pytest', 'ray', 'peft', 'embedding_atlas', 'tifffile'):
    assert u.find_spec(extra) is None, extra
"
embedstore fetch --list > /dev/null
embedstore models > /dev/null
probes report --output report --store own > /dev/null 2>&1
test -s report/index.html
embedstore doctor --store own
