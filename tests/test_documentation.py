"""What a reader of docs/ can copy runs: SQL, Python, shell; what is generated is up to date."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedstore.query import run_sql
from embedstore.store import Store
from tests.conftest import ROOT, call_command, make_tiny, write_csv
import re

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
DOMAINS = {"a": "canine lymphosarcoma", "b": "human breast cancer", "c": "human melanoma"}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def own_slides(folder: Path) -> None:
    """What a reader of the tutorial has: cells.csv and slides, 12 cases in three domains."""
    tiny = make_tiny(folder, per_label=4, domains=("a", "b", "c", "d", "e", "f"))
    of = dict(zip("abcdef", ("aperio", "aperio", "hamamatsu", "hamamatsu", "3dhistech", "3dhistech"), strict=True))
    rows = [r | {"domain": of[r["slide"][0]], "case": f"case-{Path(r['slide']).stem}"} for r in tiny.rows]
    write_csv(folder / "cells.csv", rows)
    tiny.csv.unlink()


def ok(*words: object) -> str:
    done = call_command(*words)
    assert done.code == 0, f"{words}\n{done.err}"
    return done.out


def write_midog(folder: Path) -> Path:
    """MIDOG's json of three domains and six cases, with votes, one annotation off its slide."""
    tiny = make_tiny(folder, per_label=20, domains=tuple(DOMAINS))
    names = sorted({r["slide"] for r in tiny.rows})
    images = [
        {"id": n, "file_name": name, "width": 900, "height": 700, "tumor_type": DOMAINS[name[0]],
         "case": f"case-{n}"} for n, name in enumerate(names)
    ]  # fmt: skip
    annotations = []
    for n, r in enumerate(tiny.rows):
        x, y, mine = float(r["x"]), float(r["y"]), 1 + (r["label"] != "mitotic figure")
        x = 5000 if n == 0 else x
        annotations.append({
            "id": n, "image_id": names.index(r["slide"]), "category_id": mine,
            "bbox": [x - 25, y - 25, x + 25, y + 25],
            "labels": [mine, mine, 3 - mine if n % 5 == 0 else mine]})  # fmt: skip
    path = folder / "MIDOG.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [
        {"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "not mitotic figure"}]}))  # fmt: skip
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """A store as the cookbook supposes: dataset midog, models uni and virchow2, all experiments."""
    folder = tmp_path_factory.mktemp("cookbook")
    at = ("--store", folder / "store")
    ok("embedstore", "add", "midog", "--annotations", write_midog(folder), "--slides", folder / "slides", *at)
    for name, arch in (("uni", "timm:test_vit"), ("virchow2", "timm:test_resnet")):
        ok("embedstore", "ingest", "midog", "--model", arch, "--weights", f"{arch}=random", "--as", name,
           "--patch-px", "64", *at)  # fmt: skip
    run = ("probes", "run", "midog", *at)
    ok(*run, "--method", "uni", "--method", "prototype", "--fraction", "0.1", "--fraction", "1")
    ok(*run, "--group-by", "case")
    ok(*run, "--scheme", "cross-domain", "--fold", "0", "--fold", "1")
    ok(*run, "--target", "domain", "--fold", "0")
    ok("e2e", "run", "midog", "--backbone", "test_resnet", "--weights", "random", "--epochs", "1",
       "--min-steps", "2", "--batch-size", "8", "--patch-px", "32", "--fold", "0", "--device", "cpu", *at)  # fmt: skip
    # Last, since a model that lacks embeddings cannot be probed: what the queries find missing.
    ok("embedstore", "ingest", "midog", "--model", "timm:test_vit", "--weights", "test_vit=random", "--as", "phikon",
       "--patch-px", "64", "--limit", "16", *at)  # fmt: skip
    return Store.open(str(folder / "store"))


@pytest.mark.parametrize("query", blocks("sql-cookbook.md", "sql"))
def test_every_query_of_the_cookbook_answers(store, query):
    found = run_sql(store, query)
    assert found.num_rows
