"""The Python examples of docs/ run, those that extend a table among them."""

import doctest
import io
import re
import shlex
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.annotations.readers import FORMATS
from embedstore.models.registry import REGISTRY
from embedstore.store import Store
from embedstore.store.asking import run_sql
from probes.methods.table import METHODS
from probes.recipes import RECIPES
from probes.scores.metrics import METRICS
from probes.scores.statistics import jackknife
from probes.splits.schemes import SCHEMES
from tests.making.commands import call_command
from tests.making.pages import DOCS, blocks, ok
from tests.making.slides import make_tiny

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
    changed: tuple[MutableMapping[str, Any], ...] = (
        *(REGISTRY, FORMATS, METHODS, METRICS, SCHEMES),
        RECIPES,
    )
    saved = [(t, dict(t)) for t in changed]
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
    FORMATS.update(example('FORMATS = {"asap"')["FORMATS"])  # type: ignore[call-overload]
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
    (found,) = jackknife(y, p, list("abcde"), 0.5, names=names).values()
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


@pytest.mark.usefixtures("tables")
def test_a_recipe_of_the_page_has_its_number_beside(store: Store) -> None:
    example('RECIPES["yours"]')
    words = f"probes reproduce yours --dataset midog --model uni --json --store {store.uri}"
    mean, beside = call_command(*shlex.split(words)).json()
    assert beside["value"] == pytest.approx(mean["value"] - 0.85)
    assert beside["against"] == "UNI, linear probe, published"
