"""The report's files: all there, valid, every name escaped, the same at every writing."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image

from embedstore.store import Store
from probes.reports import report
from probes.reports.repeat import command
from probes.reports.tables import (
    Column,
    Table,
    best_of,
    latex_text,
    markdown_text,
    to_csv,
    to_latex,
)
from tests.making.commands import call_command
from tests.making.reports import table
from tests.making.stores import DATASET

# ------------------------------------------------------------------------------------- files


def test_every_file_is_there_and_valid(written: dict[str, Path]) -> None:
    names = set(written)
    for stem in ("figure1", "figure2-1", "calibration", "map-1"):
        assert {f"{stem}.svg", f"{stem}.png"} <= names
        ET.parse(written[f"{stem}.svg"])
        with Image.open(written[f"{stem}.png"]) as image:
            image.load()
            assert image.width > 500
    tables = [n.removesuffix(".csv") for n in names if n.endswith(".csv")]
    assert {
        "table1",
        "table2",
        "figure1",
        "figure2",
        "leakage",
        "grouping",
        "pairs",
        "paper-1",
        "calibration",
        "domain",
        "metrics",
        "manifests",
        "weights",
        "commands",
    } <= set(tables)
    for stem in tables:
        rows = list(csv.reader(io.StringIO(written[f"{stem}.csv"].read_text())))
        assert len(rows) > 1
        assert {len(r) for r in rows} == {len(rows[0])}
        lines = [x for x in written[f"{stem}.md"].read_text().splitlines() if x.startswith("|")]
        assert len(lines) == len(rows) + 1
        assert len({len(re.findall(r"(?<!\\)\|", x)) for x in lines}) == 1, stem
        tex = written[f"{stem}.tex"].read_text()
        body = tex[tex.index("\\toprule") : tex.index("\\bottomrule")].splitlines()
        ampersands = {len(re.findall(r"(?<!\\)&", x)) for x in body if x.endswith("\\\\")}
        assert len(ampersands) == 1, stem
        bare = re.sub(r"\\[{}]", "", tex)
        assert bare.count("{") == bare.count("}")
        text = tex[tex.index("\\caption") :]
        assert not re.search(r"(?<!\\)[#%_^~]", text), stem
    figures = {n.rpartition(".")[0] for n in names if n.endswith(".svg")}
    assert len(names) == 3 + 2 * len(figures) + 3 * len(
        tables
    )  # the page, the leaderboard and what wrote them


def test_no_markup_of_a_name_survives_in_text_forms() -> None:
    assert markdown_text("<b>|*_`[x](y)") == r"&lt;b&gt;\|\*\_\`\[x\](y)"
    assert latex_text("50% of $x_1$ & {y}\\z") == (r"50\% of \$x\_1\$ \& \{y\}\textbackslash{}z")
    row = Table("t", "T", [Column("a", "a")], [{"a": "=1+1\n2", "b": float("nan")}])
    assert to_csv(row) == 'a,b\n"\'=1+1\n2",\n'
    assert "=1+1 2" in to_latex(row)


def test_bold_is_the_best_of_its_group_and_nothing_where_all_are_equal() -> None:
    rows: list[dict[str, Any]] = [
        {"g": 1, "v": 0.5},
        {"g": 1, "v": 0.7},
        {"g": 2, "v": 0.9},
        {"g": 2, "v": 0.9},
        {"g": 1, "v": None},
        {"g": 3, "v": float("nan")},
    ]
    assert best_of(rows, "v", ("g",)) == {(1, "v")}
    runs = [{"v": 0.9, "n": 1}, {"v": 0.5, "n": 5}, {"v": 0.6, "n": 5}]
    assert best_of(runs, "v", (), "n") == {(2, "v")}


class _Reader(HTMLParser):
    """What a browser would see: tags, attributes that run scripts, addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[Any] = []
        self.handlers: list[Any] = []
        self.addresses: list[Any] = []

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append(dict(attrs).get("type"))
        self.handlers += [k for k, _ in attrs if k.startswith("on")]
        self.addresses += [v for k, v in attrs if k in ("src", "href")]


def test_the_page_escapes_every_name_and_needs_no_network(written: dict[str, Path]) -> None:
    text = written["index.html"].read_text()
    seen = _Reader()
    seen.feed(text)
    n_widgets = text.count('class="widget"')
    assert seen.scripts == ["application/json"] * n_widgets + [None]
    assert not seen.handlers
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<img src=x" not in text
    assert "<b>|m|" not in text
    for address in seen.addresses:
        assert address.startswith(("#", "data:image/jpeg")) or address in written, address
    assert not re.findall(r"https?://(?!www\.w3\.org)", text)
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for data in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL):
        json.loads(data)


def test_nothing_is_written_to_the_store(store: Store, tmp_path: Path) -> None:
    before = {t: store.stats(t)["version"] for t in store.tables()}
    report(store, [DATASET], tmp_path / "again")
    assert {t: store.stats(t)["version"] for t in store.tables()} == before


def test_writing_again_gives_the_same_figures(
    store: Store, written: dict[str, Path], tmp_path: Path
) -> None:
    rows = report(store, [], tmp_path)
    for r in rows:
        file = Path(r["file"])
        if file.suffix in (".svg", ".csv", ".md", ".tex"):
            assert file.read_bytes() == written[file.name].read_bytes(), file.name


# ---------------------------------------------------------------------------------- the verb


def test_the_command_lists_its_files(store: Store, tmp_path: Path) -> None:
    done = call_command(
        "probes", "report", "--output", tmp_path / "r", "--json", "--store", store.uri
    )
    rows = done.json()
    assert rows[0]["file"].endswith("index.html")
    assert {r["kind"] for r in rows} == {"page", "about", "leaderboard", "figure", "table"}
    assert {Path(r["file"]).name for r in rows} == {p.name for p in (tmp_path / "r").iterdir()}
    failed = call_command("probes", "report", "x", "--output", tmp_path / "r", "--store", store.uri)
    assert failed.code == 1
    assert "no dataset 'x'" in failed.err


def test_commands_are_quoted_for_a_shell(written: dict[str, Path]) -> None:
    assert command("probes", "run", "a b", "--where", "x = 'y'") == (
        "probes run 'a b' --where 'x = '\"'\"'y'\"'\"''"
    )
    made = [r["command"] for r in table(written, "commands")]
    assert any("--scheme cross-domain" in c for c in made)
    assert any("--target domain" in c for c in made)
    assert all(c.startswith(("probes run 'set", "embedstore ingest 'set")) for c in made)
