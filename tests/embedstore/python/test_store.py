"""The verbs of `embedstore` as methods: what the commands print, and what they leave."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedstore import EmbedstoreError, Store, UsageError
from embedstore.python.rows import Rows, rows_of
from tests.making.commands import call_command
from tests.making.frames import same
from tests.making.slides import TinyDataset

VIT = {"timm:test_vit": "random"}


READS: dict[str, tuple[Callable[[Store], Rows], tuple[str, ...]]] = {
    "status": (lambda s: s.status(), ("status",)),
    "status of one": (lambda s: s.status("tiny"), ("status", "tiny")),
    "models": (lambda s: s.models(), ("models",)),
    "sql": (
        lambda s: s.sql(
            "select domain, label, count(*) as n from annotations group by all order by all"
        ),
        ("sql", "select domain, label, count(*) as n from annotations group by all order by all"),
    ),
    "remove": (
        lambda s: s.remove("tiny", model="timm:test_vit", dry_run=True),
        ("remove", "tiny", "--model", "timm:test_vit", "--dry-run"),
    ),
}


@pytest.mark.parametrize("name", READS)
def test_what_reads_gives_the_rows_of_its_command(embedded: str, name: str) -> None:
    asks, words = READS[name]
    in_store = () if words[0] == "models" else ("--store", embedded)
    printed = call_command("embedstore", *words, "--json", *in_store).json()
    same(asks(Store(embedded)), printed)


def test_neighbours_are_those_of_the_command(embedded: str) -> None:
    store = Store(embedded)
    first = store.sql("select min(annotation_id) as id from annotations")["id"][0]
    found = store.neighbors(first, model="timm:test_vit", k=5, where="label = 'mitotic figure'")
    words = ("neighbors", first, "--model", "timm:test_vit", "-k", 5)
    where = ("--where", "label = 'mitotic figure'", "--json", "--store", embedded)
    same(found, call_command("embedstore", *words, *where).json())


def test_filled_from_python_a_store_is_that_of_the_commands(
    tmp_path: Path, tiny: TinyDataset
) -> None:
    """Add, ingest, export, import, doctor and remove, beside the same by commands."""
    ours, theirs = Store(tmp_path / "ours"), str(tmp_path / "theirs")
    added = ours.add(
        "tiny", tiny.csv, slides=tiny.slides, label={"mitotic figure": "yes"}, positive="yes"
    )
    made = ours.ingest("tiny", "timm:test_vit", weights=VIT, patch_px=64)
    file = tmp_path / "v.parquet"
    exported = ours.export("tiny", model="timm:test_vit", output=file)
    brought = ours.import_("tiny", file, model="again")

    def command(*words: object) -> list[dict[str, Any]]:
        return call_command("embedstore", *words, "--json", "--store", theirs).json()

    label = ("--label", "mitotic figure=yes", "--positive", "yes")
    same(added, command("add", "tiny", "--annotations", tiny.csv, "--slides", tiny.slides, *label))
    weights = ("--weights", "timm:test_vit=random", "--patch-px", 64)
    same(made, command("ingest", "tiny", "--model", "timm:test_vit", *weights))
    same(
        exported,
        command("export", "tiny", "--model", "timm:test_vit", "--output", file, "--overwrite"),
    )
    same(brought, command("import", "tiny", file, "--model", "again"))
    for query in (
        "select * exclude (path) from slides order by all",
        "select * from annotations order by all",
        "select * from embeddings order by annotation_id, model",
    ):
        assert ours.sql(query).equals(Store(theirs).sql(query)), query
    assert not len(ours.doctor())
    removed = ours.remove("tiny", model="again")
    assert removed["n"].sum() > 0
    assert ours.status()["model"].tolist() == ["timm:test_vit"]


def test_each_call_sees_what_others_wrote_meanwhile(tmp_path: Path, tiny: TinyDataset) -> None:
    store = Store(tmp_path / "s")
    assert "no store" in store._repr_html_()
    Store(store.uri).add("tiny", tiny.csv)
    assert len(store.status()) == 1
    shutil.rmtree(store.uri)
    with pytest.raises(EmbedstoreError, match="no store at"):
        store.status()


def test_a_dry_run_returns_the_annotations_and_writes_nothing(
    tmp_path: Path, tiny: TinyDataset
) -> None:
    store = Store(tmp_path / "s")
    rows = store.add("tiny", tiny.csv, slides=tiny.slides, dry_run=True)
    assert len(rows) == 48
    assert not Path(store.uri).exists()


def test_the_place_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBEDSTORE_URI", raising=False)
    assert Store().uri == "./store"
    monkeypatch.setenv("EMBEDSTORE_URI", "s3://bucket/s")
    assert repr(Store()) == "Store('s3://bucket/s')"


def test_what_is_wrong_is_an_error_in_words(embedded: str) -> None:
    store = Store(embedded)
    with pytest.raises(EmbedstoreError, match="read only in SQL"):
        store.sql("drop table annotations")
    with pytest.raises(EmbedstoreError, match="unknown metric"):
        store.neighbors("x", model="timm:test_vit", metric="l7")
    with pytest.raises(UsageError, match="engine"):
        store.ingest("tiny", "timm:test_vit", engine="cloud")


def test_notes_are_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of("t", [{"a": 1}], ["one", "one", "two"])
    assert rows.notes == ["one", "one", "two"]
    assert capsys.readouterr().err == "note: one (2 times)\nnote: two\n"


def test_html_escapes_names_and_shows_what_stands_for_all() -> None:
    evil = "<script>alert(1)</script>"
    rows = rows_of(evil, [{evil: evil}], shown=[{"few": evil}])
    html = rows._repr_html_()
    assert "<script>" not in html
    assert "1 rows, 1 columns" in html
    assert "few" in html


def test_what_is_cut_from_rows_is_a_plain_frame_and_a_column_of_nulls_counts() -> None:
    rows = rows_of("t", [{"a": 1, "b": None}, {"a": 2, "b": None}])
    assert not isinstance(rows.head(1), Rows)
    assert rows["b"].mean() != rows["b"].mean()  # NaN, and no error
