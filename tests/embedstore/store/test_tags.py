"""`tag`: what has a tag is what was named, in SQL, in conditions and in splits."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore import doctor
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.store import Store
from embedstore.store.removal import Part, plan_removal, remove
from embedstore.store.sql import connect, fetch_rows
from embedstore.store.tags import change, check_tag, chosen_ids, counted, ids_of, tagged
from tests.making.commands import call_command
from tests.making.slides import TinyDataset
from tests.making.stores import bare_store, query

CELLS = [{"slide": f"{n % 4}.tiff", "source_id": str(n)} for n in range(24)]
IDS = [f"d/{c['slide']}/{c['source_id']}" for c in CELLS]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return bare_store(str(tmp_path / "s"), "d", CELLS)


def having(store: Store, name: str) -> set[str]:
    sql = f"select annotation_id from annotations where '{name}' in tags"
    return {r["annotation_id"] for r in query(store, sql)}


subsets = st.lists(st.sampled_from(IDS), unique=True)


@given(st.lists(st.tuples(st.sampled_from(["a", "b c"]), st.booleans(), subsets), max_size=6))
@settings(max_examples=15)
def test_tags_are_sets(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[str, bool, list[str]]]
) -> None:
    store = bare_store(str(tmp_path_factory.mktemp("t") / "s"), "d", CELLS)
    expected: dict[str, set[str]] = {"a": set(), "b c": set()}
    for name, off, ids in steps:
        if not ids or (off and not expected[name]):
            continue
        change(store, name, ids, remove=off)
        expected[name] = expected[name] - set(ids) if off else expected[name] | set(ids)
    for name, ids_there in expected.items():
        assert having(store, name) == ids_there
    rows = fetch_rows(connect(store), "select annotation_id, tags from annotations")
    assert len(rows) == len(IDS)  # a join that multiplies would show here
    for row in rows:
        assert row["tags"] == [n for n in ("a", "b c") if row["annotation_id"] in expected[n]]
    assert {r["tag"]: r["n_annotations"] for r in counted(store)} == {
        n: len(i) for n, i in expected.items() if i
    }


def test_an_annotation_without_tags_has_none_of_them(store: Store) -> None:
    change(store, "odd", IDS[:3])
    sql = "select count(*) as n from annotations where not ('odd' in tags)"
    assert query(store, sql) == [{"n": len(IDS) - 3}]


@pytest.mark.parametrize("name", ["", " a", "a/b", "a'b", 'a"b', "a\\b", "a\nb", "x" * 65])
def test_a_name_must_fit_in_a_condition(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="no name for a tag"):
        change(store, name, IDS)
    assert counted(store) == []


def test_a_name_in_any_script_is_one() -> None:
    for name in ("odd", "zu prüfen", "確認", "a.b-c_d 1"):
        check_tag(name)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"id": ["x"]}, "need a column annotation_id; there: id"),
        ({"annotation_id": [IDS[0], None]}, "1 of 2 rows have no annotation_id"),
        ({"annotation_id": [IDS[0], "x", "y"]}, "2 of the rows' annotation_id are none of"),
        ({"annotation_id": [1, 2]}, "2 of the rows' annotation_id are none of"),
    ],
)
def test_rows_that_name_no_annotation_are_refused(
    store: Store, rows: dict[str, list[object]], said: str
) -> None:
    with pytest.raises(EmbedstoreError, match=said):
        ids_of(store, pa.table(rows))


def test_nothing_is_tagged_by_no_rows(store: Store) -> None:
    with pytest.raises(EmbedstoreError, match="there are no rows"):
        change(store, "odd", [])
    with pytest.raises(EmbedstoreError, match="no annotation has the tag 'odd'; there: none"):
        tagged(store, "odd")
    change(store, "odds", IDS[:1])
    with pytest.raises(EmbedstoreError, match="did you mean 'odds'"):
        change(store, "odd", None, remove=True)
    with pytest.raises(UsageError, match="not both"):
        chosen_ids(store, "select 1", Path("f.csv"))


def test_removed_annotations_lose_their_tags_and_others_keep_them(store: Store) -> None:
    change(store, "odd", IDS[:8])
    going = plan_removal(store, "d", Part(slide="1.tiff"))
    assert going.counts["tags"] == 2
    remove(store, going)
    left = [i for i in IDS[:8] if "/1.tiff/" not in i]
    assert tagged(store, "odd") == sorted(left)
    assert store.lance("tags").count_rows() == len(left)
    assert not [f for f in doctor.examine(store) if "tags" in str(f.row())]


def test_a_tag_of_no_annotation_is_found_and_mended(store: Store) -> None:
    change(store, "odd", IDS[:2])
    store.delete("annotations", "annotation_id", [IDS[0]])
    (finding,) = [f for f in doctor.examine(store) if f.row()["table"] == "tags"]
    assert "tags of annotations that are not there" in str(finding.row())
    doctor.mend(store, [finding])
    assert store.lance("tags").count_rows() == 1


def test_added_again_annotations_keep_their_tags(tiny: TinyDataset, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "s")
    add = ("embedstore", "add", "tiny", "--annotations", tiny.csv, "--slides", tiny.slides, *store)
    assert call_command(*add).code == 0
    chosen = (
        "select annotation_id from annotations where domain = (select min(domain) from annotations)"
    )
    tag = call_command("embedstore", "tag", "first", chosen, "--json", *store)
    (row,) = tag.json()
    assert row["n_annotations"] == 24
    assert "24 of 24 annotations are newly tagged" in tag.err
    assert "0 of 24" in call_command("embedstore", "tag", "first", chosen, *store).err
    assert call_command(*add).code == 0
    assert call_command("embedstore", "tag", "--json", *store).json()[0]["n_annotations"] == 24
    file = tmp_path / "selection.csv"
    call_command("embedstore", "sql", chosen + " limit 3", "--output", file, *store)
    took = call_command("embedstore", "tag", "first", "--from", file, "--remove", "--json", *store)
    assert took.json()[0]["n_annotations"] == 21
    assert call_command("embedstore", "tag", "--remove", *store).code == 2


def test_a_split_is_cut_by_a_tag(tiny: TinyDataset, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "s")
    add = ("embedstore", "add", "tiny", "--annotations", tiny.csv, "--slides", tiny.slides, *store)
    assert call_command(*add).code == 0
    chosen = "select annotation_id from annotations where hash(annotation_id) % 3 > 0"
    n = call_command("embedstore", "tag", "kept", chosen, "--json", *store).json()[0][
        "n_annotations"
    ]
    split = ("probes", "split", "tiny", "--fractions", "1", "--where", "'kept' in tags", *store)
    assert call_command(*split).code == 0
    members = (
        "select count(distinct annotation_id) as n, bool_and('kept' in a.tags) as only "
        "from manifests join annotations a using (annotation_id)"
    )
    rows = call_command("embedstore", "sql", members, "--format", "json", *store).json()
    assert rows == [{"n": n, "only": True}]
