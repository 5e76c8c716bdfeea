"""What a reader of docs/ can copy runs: SQL, Python, shell; what is generated is up to date."""

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from embedstore.store import Store
from embedstore.store.asking import run_sql
from tests.making.commands import ROOT
from tests.making.pages import DOCS, blocks, ok
from tests.making.slides import make_tiny, write_csv

PAGES = sorted(DOCS.glob("*.md"))


def own_slides(folder: Path) -> None:
    """What a reader of the tutorial has: cells.csv and slides, 12 cases in three domains."""
    tiny = make_tiny(folder, per_label=3, domains=("a", "b", "c", "d", "e", "f"))
    domains = {
        **dict.fromkeys("ab", "aperio"),
        **dict.fromkeys("cd", "hamamatsu"),
        **dict.fromkeys("ef", "3dhistech"),
    }
    rows = [
        r | {"domain": domains[r["slide"][0]], "case": f"case-{r['slide'].partition('.')[0]}"}
        for r in tiny.rows
    ]
    write_csv(folder / "cells.csv", rows)
    tiny.csv.unlink()


@pytest.mark.parametrize("query", blocks("sql-cookbook.md", "sql"))
def test_every_query_of_the_cookbook_answers(store: Store, query: Any) -> None:
    found = run_sql(store, query)
    assert found.num_rows


# ------------------------------------------------------------------------------- tutorial


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """What each shell block of the tutorial printed, in a folder with a reader's files."""
    folder = tmp_path_factory.mktemp("tutorial")
    own_slides(folder)
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("EMBEDSTORE_URI", raising=False)
        for block in blocks("tutorial.md", "sh"):
            printed.append((block, "".join(map(ok, block.splitlines()))))
    return printed


def test_the_tutorial_runs_word_for_word_and_prints_what_it_says(
    tutorial: list[tuple[str, str]],
) -> None:
    said = blocks("tutorial.md", "text")[1:]
    assert len(said) == len(tutorial)
    for (block, printed), text in zip(tutorial, said, strict=True):
        there = set(words(printed))
        assert [w for w in words(text) if w not in there] == [], block


def test_the_page_on_looking_runs_word_for_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_slides(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMBEDSTORE_URI", raising=False)
    ok("embedstore add midog --annotations cells.csv --slides .")
    ok("embedstore ingest midog --model timm:test_vit --weights timm:test_vit=random")
    for block in blocks("looking.md", "sh"):
        for line in block.splitlines():
            ok(line)
    for name in ("mitoses.html", "false-positives.html", "map/index.html"):
        assert (tmp_path / name).is_file(), name
    for folder in ("odd-for-qupath", "next"):
        assert list((tmp_path / folder).glob("*.geojson")), folder


def words(text: str) -> list[str]:
    """The words of an output; numbers, dtypes and ids of annotations may differ by machine."""
    same = re.sub(r"\S+\.tiff\S*|\bb?float\d+", "", text)
    found = re.findall(r"[A-Za-z][\w-]*", same)
    return [w for w in found if w.isascii()]


def test_the_sample_of_the_tutorial_is_the_file(tmp_path: Path) -> None:
    own_slides(tmp_path)
    rows = (tmp_path / "cells.csv").read_text().splitlines()
    assert blocks("tutorial.md", "text")[0].splitlines() == rows[:4]


# ------------------------------------------------------------- data and weights, by the real files


def test_the_counts_of_midog_are_those_of_the_page(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMBEDSTORE_URI", raising=False)
    for file in (*(data / "midogpp").iterdir(), *(data / "midog21").iterdir()):
        (tmp_path / file.name).symlink_to(file)
    lines = "".join(blocks("data-and-weights.md", "sh")).splitlines()
    printed = "".join(map(ok, lines))
    for n in ("11,937", "14,349", "9,501", "11,049", "1,721", "2,714"):
        assert n in printed, n
    text = (DOCS / "data-and-weights.md").read_text()
    row = r"^\| ((?:canine|human) [\w ]+) \| ([\d,]+) \| ([\d,]+) \| (\d+) \|$"
    rows = re.findall(row, text, flags=re.M)
    stored = run_sql(
        Store.open("store"),
        "select domain, count(*) filter (label = 'mitotic figure') as a, count(*) filter (label != "
        "'mitotic figure') as b, count(distinct slide) as c from annotations where dataset = 'midogpp' "
        "group by 1 order by 1",
    ).to_pylist()
    assert [(d, *(int(n.replace(",", "")) for n in more)) for d, *more in rows] == [
        tuple(r.values()) for r in stored
    ]
    totals = run_sql(
        Store.open("store"),
        "select count(*), count(distinct domain), count(distinct slide) "
        "from annotations where dataset = 'midogpp'",
    ).to_pylist()[0]
    assert tuple(totals.values()) == (26_286, 7, 503)


# ------------------------------------------------------------------- what is written, and links


def test_the_generated_parts_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # the page's own width counts
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.COMMANDS.read_text() == generate.commands(), "run `make docs`"
    assert generate.API.read_text() == generate.api(), "run `make docs`"
    assert generate.NOTEBOOK.read_text() == generate.notebook(), "run `make docs`"
    page = generate.WEIGHTS.read_text()
    assert page == generate.with_models(page), "run `make docs`"


def source_texts() -> list[str]:
    """Every text in the code; what is filled in stands as …"""
    texts = []
    for folder in ("embedstore", "probes", "e2e"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                    texts.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return texts


def test_the_errors_of_the_page_are_those_of_the_code() -> None:
    texts = source_texts()
    messages = re.findall(r"^\| `([^`]+)` \|", (DOCS / "errors.md").read_text(), flags=re.M)
    assert len(messages) > 60
    for message in messages:
        form = re.compile(".*".join(map(re.escape, message.split("…"))), flags=re.DOTALL)
        assert any(form.search(t) for t in texts), message


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made of them when it is shown."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in heads}


LINKING = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", LINKING, ids=lambda p: p.name)
def test_links_and_named_files_are_there(page: Any) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        name, _, anchor = link.partition("#")
        if name.startswith("http"):
            continue
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    ours = r"`((?:embedstore|probes|e2e|tests|docs|benchmarks)/[\w/.]+\.(?:py|md))`"
    for name in re.findall(ours, text):
        assert (ROOT / name).is_file(), name


def test_every_page_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in PAGES:
        assert f"(docs/{page.name})" in readme, page.name


# --------------------------------------------------------------------------- own vectors


def test_the_commands_for_own_vectors_run_as_the_page_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With files as the page describes them; the answer has its words and columns in their place."""
    rng = np.random.default_rng(1)
    case = rng.integers(0, 24, 240)
    label = np.where(rng.random(240) < 0.5, "mitotic figure", "non-mitotic figure")
    cells = {"cell": [f"cell {k}" for k in range(240)], "label": label, "case": case}
    pd.DataFrame(cells).to_csv(tmp_path / "cells.csv", index=False)
    for name, signal in (("ours", 1.5), ("theirs", 0.8)):
        vectors = rng.normal(size=(240, 64))
        vectors[:, 0] += signal * (label == "mitotic figure")
        frame = pd.DataFrame({"cell": cells["cell"], "vector": [*vectors]})
        frame.to_parquet(tmp_path / f"{name}.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMBEDSTORE_URI", raising=False)
    first, then = blocks("own-vectors.md", "sh")
    (answer, _) = blocks("own-vectors.md", "text")
    said = "".join(map(ok, [*first.splitlines(), *then.splitlines()]))
    numbers = re.compile(r"\d\.\d+")
    assert numbers.sub("N", answer.strip()) in numbers.sub("N", said)
    assert (tmp_path / "report" / "index.html").is_file()
