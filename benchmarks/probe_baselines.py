"""What bench_probes fits and holds itself against: generated embeddings, and probes one by one."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from probes.splits import draw as splits
from probes.splits import schemes

Solutions = dict[str, tuple[Any, float]]
DIM = 1536
SETS = {
    "A": ([72_845], [44_880]),  # CCMCT ODAEL: annotations and mitotic figures
    "B": ([4_435, 1_806, 8_216, 3_693, 2_402], [1_721, 855, 3_959, 2_327, 639]),  # MIDOG 2022
}


@dataclass
class Data:
    """One dataset's matrix and labels, and its fits by name."""

    x: Any
    y: Any
    fits: dict[str, splits.Split] = field(default_factory=dict)


def generate(n_of: list[int], n_pos: list[int], dim: int, seed: int) -> tuple[Any, Any, Any]:
    """Return x float32 (n, dim), y and domain (n,); eigenvalues fall as 1/i, mean variance 1."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, dim + 1) ** -0.5
    scale *= math.sqrt(dim / (scale**2).sum())
    turn = np.linalg.qr(rng.standard_normal((dim, dim), dtype=np.float32))[0]
    basis = (scale[:, None] * turn).astype(np.float32)
    mean = rng.normal(size=dim)
    weight = np.arange(1, dim + 1) ** -0.25
    shared = rng.normal(size=dim) * weight
    domain = np.repeat(np.arange(len(n_of)), n_of)
    y = np.concatenate(
        [rng.permutation(np.arange(n) < p) for n, p in zip(n_of, n_pos, strict=True)]
    )
    x = np.empty((len(y), dim), dtype=np.float32)
    for k in range(len(n_of)):
        signal = shared + 0.5 * rng.normal(size=dim) * weight
        signal *= 2 / np.linalg.norm(signal)
        offset = mean + (0.7 * rng.normal(size=dim) @ basis if k else 0)
        rows = np.flatnonzero(domain == k)
        for i in range(0, len(rows), 4096):
            block = rows[i : i + 4096]
            z = rng.standard_normal((len(block), dim), dtype=np.float32)
            z += ((y[block] - 0.5)[:, None] * signal).astype(np.float32)
            x[block] = z @ basis + offset.astype(np.float32)
    return x, y, domain


def load(name: str, quick: bool) -> Data:
    """Return a dataset with its fits: Monte Carlo, and by train domain where there are several."""
    n_of, n_pos = SETS[name]
    dim, less = (192, 16) if quick else (DIM, 1)
    x, y, domain = generate(
        [n // less for n in n_of], [p // less for p in n_pos], dim, seed=ord(name)
    )
    ids = [f"{i:06d}" for i in range(len(y))]
    pool = splits.Pool(ids, [str(v) for v in y], [str(v) for v in domain], ids)
    options: dict[str, Any] = {"group_by": "annotation", "stratify": "none", "seed": 42}
    data = Data(x, y)
    for fold in range(5):
        for fraction in splits.DEFAULT_FRACTIONS[2 if quick else 0 :]:
            data.fits[f"{name} fold {fold}, {fraction}"] = schemes.monte_carlo(
                pool, fold, fraction, None, **options
            )
        for k in schemes.train_domains("cross-domain", pool) if len(n_of) > 1 else []:
            data.fits[f"{name} fold {fold}, domain {k}"] = schemes.cross_domain(
                pool, fold, 1.0, k, **options
            )
    return data


def objective(x: Any, y: Any, rows: Any, v: Any, b: float) -> float:
    """Return UNI's objective of (v, b) in float64, by its formula."""
    total, cost = 0.0, x.shape[1] * 2 / 100
    for i in range(0, len(rows), 8192):
        part = rows[i : i + 8192]
        z = x[part].astype(np.float64) @ v + b
        total += float(np.logaddexp(0, np.where(y[part], -z, z)).sum())
    return float(total / len(rows) + np.linalg.norm(v) / (2 * math.sqrt(2) * cost))


def uni_recipe(x: Any, y: Any) -> tuple[Any, float]:
    """Return (v, b) by UNI's settings of torch's LBFGS, in float32 from zero."""
    linear = torch.nn.Linear(x.shape[1], 2)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimiser = torch.optim.LBFGS(
        linear.parameters(),
        max_iter=1000,
        history_size=100,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-7,
        tolerance_change=1e-9,
    )
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))
    cost = x.shape[1] * 2 / 100

    def closure() -> float:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(linear(inputs), targets)
        loss = loss + (1 / cost) * 0.5 * linear.weight.norm(p=2)
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    w, b = linear.weight.detach().double().numpy(), linear.bias.detach().double().numpy()
    return w[1] - w[0], float(b[1] - b[0])


def sklearn_recipe(x: Any, y: Any, v: Any, tol: float) -> tuple[Any, float]:
    """Return (v, b) of LogisticRegression at the C that matches UNI's penalty at its optimum v."""
    cost = 2 * math.sqrt(2) * float(np.linalg.norm(v)) * x.shape[1] * 2 / 100 / len(y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = LogisticRegression(C=cost, tol=tol, max_iter=10_000).fit(x, y)
    return found.coef_[0].astype(np.float64), float(found.intercept_[0])


def one_by_one(
    data: Data, recipe: Callable[[Any, Any, str], tuple[Any, float]], repeats: int
) -> tuple[Solutions, dict[str, float]]:
    """Return each fit's (v, b) and its seconds, the fastest of the repeats."""
    found, seconds = {}, {}
    for name, split in data.fits.items():
        x, y = np.take(data.x, split.train, axis=0), data.y[split.train]
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            found[name] = recipe(x, y, name)
            taken.append(time.perf_counter() - started)
        seconds[name] = min(taken)
    return found, seconds
