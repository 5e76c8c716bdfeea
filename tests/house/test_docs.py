"""What a reader of docs/ can copy runs: SQL, Python, shell; what is generated is up to date."""

import ast
import doctest
import importlib.util
import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.annotations.readers import READERS
from embedstore.models.registry import REGISTRY
from embedstore.store import Store
from embedstore.store.sql import run_sql
from probes.methods.fits import METHODS
from probes.scores.metrics import METRICS
from probes.scores.statistics import bootstrap
from probes.splits.schemes import SCHEMES
from tests.making.commands import ROOT, call_command
from tests.making.slides import make_tiny, write_csv

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
DOMAINS = {"a": "canine lymphosarcoma", "b": "human breast cancer", "c": "human melanoma"}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


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


def ok(line: str) -> str:
    """What a command line prints, in this process; it must end well."""
    done = call_command(*shlex.split(line))
    assert done.code == 0, f"{line}\n{done.err}"
    return done.out + done.err


def write_midog(folder: Path) -> Path:
    """MIDOG's json of three domains and six cases, with votes, one annotation off its slide."""
    tiny = make_tiny(folder, per_label=10, domains=tuple(DOMAINS))
    names = sorted({r["slide"] for r in tiny.rows})
    images = [
        {
            "id": n,
            "file_name": name,
            "width": 900,
            "height": 700,
            "tumor_type": DOMAINS[name[0]],
            "case": f"case-{n}",
        }
        for n, name in enumerate(names)
    ]
    annotations = []
    for n, r in enumerate(tiny.rows):
        x, y, mine = float(r["x"]), float(r["y"]), 1 + (r["label"] != "mitotic figure")
        x = 5000 if n == 0 else x
        annotations.append(
            {
                "id": n,
                "image_id": names.index(r["slide"]),
                "category_id": mine,
                "bbox": [x - 25, y - 25, x + 25, y + 25],
                "labels": [mine, mine, 3 - mine if n % 5 == 0 else mine],
            }
        )
    path = folder / "MIDOG.json"
    path.write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [
                    {"id": 1, "name": "mitotic figure"},
                    {"id": 2, "name": "not mitotic figure"},
                ],
            }
        )
    )
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store as the cookbook supposes: dataset midog, models uni and virchow2, all experiments."""
    folder = tmp_path_factory.mktemp("cookbook")
    at = f"--store {folder / 'store'}"
    ok(
        f"embedstore add midog --annotations {write_midog(folder)} --slides {folder / 'slides'} {at}"
    )
    for name, arch in (("uni", "timm:test_vit"), ("virchow2", "timm:test_resnet")):
        model = f"--model {arch} --weights {arch}=random --as {name}"
        ok(f"embedstore ingest midog {model} --patch-px 64 {at}")
    ok(f"probes run midog --method uni --method prototype --fraction 0.2 --fraction 1 {at}")
    ok(f"probes run midog --group-by case {at}")
    ok(f"probes run midog --scheme cross-domain --fold 0 --fold 1 {at}")
    ok(f"probes run midog --target domain --fold 0 {at}")
    ok(
        "e2e run midog --backbone test_resnet --weights random --epochs 1 --min-steps 2 --batch-size 8 "
        f"--patch-px 32 --rotate 0 --no-patch-cache --fold 0 --device cpu {at}"
    )
    ok(f"probes compare midog --fraction 1 {at}")
    # Last, since a model that lacks embeddings cannot be probed: what the queries find missing.
    ok(
        "embedstore ingest midog --model timm:test_vit --weights test_vit=random --as phikon "
        f"--patch-px 64 --limit 16 {at}"
    )
    return Store.open(str(folder / "store"))


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


# ------------------------------------------------------------------------------ Python


def test_the_examples_of_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = make_tiny(tmp_path)
    tiny.csv.rename(tmp_path / "cells.csv")
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"^```.*$", "", (DOCS / "python.md").read_text(), flags=re.M)
    found = doctest.DocTestParser().get_doctest(text, {}, "python.md", None, 0)
    assert len(found.examples) > 15
    out = io.StringIO()
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(found, out=out.write)
    assert not out.getvalue(), out.getvalue()


@pytest.fixture
def tables() -> Iterator[None]:
    """What an example adds to a table is taken out again."""
    saved = [(t, dict(t)) for t in (REGISTRY, READERS, METHODS, METRICS, SCHEMES)]
    yield
    for table, before in saved:
        table.clear()
        table.update(before)


def example(start: str) -> dict[str, object]:
    """The names that an example of extending.md leaves, once it has run."""
    (block,) = [b for b in blocks("extending.md", "python") if start in b]
    assert len(block.splitlines()) < 30
    names: dict[str, object] = {}
    exec(compile(block, "extending.md", "exec"), names)
    return names


@pytest.mark.usefixtures("tables")
def test_a_model_of_the_page_embeds(store: Store) -> None:
    example('REGISTRY["our-vits16"]')
    model = "--model our-vits16 --weights our-vits16=random"
    ok(f"embedstore ingest midog {model} --patch-px 64 --limit 4 --store {store.uri}")
    assert run_sql(store, 'select len(vector) as n from "our-vits16"')["n"].to_pylist() == [384] * 4


@pytest.mark.usefixtures("tables")
def test_an_annotation_format_of_the_page_reads(tmp_path: Path) -> None:
    example('READERS["asap"]')
    corners = ((0, 0), (10, 0), (10, 20), (0, 20))
    square = "".join(f'<Coordinate X="{x}" Y="{y}"/>' for x, y in corners)
    (tmp_path / "one.xml").write_text(
        f'<ASAP_Annotations><Annotations><Annotation PartOfGroup="mitosis"><Coordinates>{square}'
        "</Coordinates></Annotation></Annotations></ASAP_Annotations>"
    )
    add = f"embedstore add asap --format asap --store {tmp_path / 'store'} --annotations"
    ok(f"{add} {tmp_path / 'one.xml'}")
    (row,) = run_sql(
        Store.open(str(tmp_path / "store")), "select slide, x_l0, y_l0, label from annotations"
    ).to_pylist()
    assert tuple(row.values()) == ("one.tiff", 5, 10, "mitotic figure")
    (tmp_path / "two.xml").write_text("no xml")
    done = call_command(*shlex.split(f"{add} {tmp_path / 'two.xml'}"))
    assert done.code == 1
    assert "does not read as asap" in done.err


@pytest.mark.usefixtures("tables")
def test_a_probe_of_the_page_is_recorded(store: Store) -> None:
    example('METHODS["lda"]')
    rows = call_command(
        *shlex.split(f"probes run midog --model uni --method lda --json --store {store.uri}")
    ).json()
    assert {(r["method"], r["n_train"]) for r in rows} == {("lda", 76)}
    assert len(rows) == 5 * len(METRICS)


@pytest.mark.usefixtures("tables")
def test_a_metric_of_the_page_is_right_and_has_an_interval() -> None:
    example('METRICS["specificity"]')
    y, score = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.7, 0.2, 0.8, 0.3])
    p = np.column_stack((1 - score, score))
    names = ["specificity"]
    (found,) = bootstrap(y, p, list("abcde"), 0.5, names=names, n_resamples=100).values()
    assert found.value == pytest.approx(2 / 3)
    assert found.low <= found.value <= found.high


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("group_by", ["annotation", "case"])
def test_a_split_scheme_of_the_page_is_disjoint_and_complete(store: Store, group_by: str) -> None:
    example('SCHEMES["five-fold"]')
    way = f"--scheme five-fold --group-by {group_by} --fractions 1"
    ok(f"probes split midog {way} --store {store.uri}")
    rows = run_sql(
        store,
        "select fold, annotation_id, role, case_id from manifests join annotations using "
        f"(annotation_id) where scheme = 'five-fold' and group_by = '{group_by}'",
    ).to_pylist()
    tested = [r["annotation_id"] for r in rows if r["role"] == "test"]
    assert len(tested) == len(set(tested)) == 119
    if group_by == "case":
        for fold in range(5):
            mine = [r for r in rows if r["fold"] == fold]
            out = {r["case_id"] for r in mine if r["role"] == "test"}
            seen = {r["case_id"] for r in mine if r["role"] != "test"}
            assert not out & seen


# ------------------------------------------------------------------- what is written, and links


def test_the_generated_parts_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # the page's own width counts
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.COMMANDS.read_text() == generate.commands(), "run `make docs`"
    page = generate.WEIGHTS.read_text()
    assert page == generate.with_models(page), "run `make docs`"


def source_texts() -> list[str]:
    """Every text in the code; what is filled in stands as …"""
    texts = []
    for folder in ("embedstore", "probes", "e2e"):
        for path in (ROOT / folder).glob("*.py"):
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
