"""--eval-dataset: what a result on another dataset depends on, what training gives away of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.runs import RunOptions, run
from probes.scores.results import RunReport
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import call_command
from tests.making.slides import write_csv
from tests.making.stores import plant, plant_two, query

SPEC = ManifestSpec("d", group_by="case")
OPTIONS = RunOptions(splits=Asked(fractions=[1.0], folds=[0, 1]), eval_dataset="e")
Row = dict[str, str]


@pytest.fixture
def two(tmp_path: Path) -> Store:
    store = plant_two(str(tmp_path / "s"), 300, 160)
    plant(store, "strong", 12, 2.0)
    return store


def rows_of(store: Store, dataset: str) -> list[Row]:
    head, *lines = Path(f"{store.uri}-{dataset}.csv").read_text().splitlines()
    return [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]


def add_again(store: Store, dataset: str, change: Callable[[int, Row], Row]) -> Store:
    """Add the dataset again, each row changed."""
    changed = [change(n, r) for n, r in enumerate(rows_of(store, dataset))]
    table = write_csv(Path(f"{store.uri}-{dataset}.csv"), changed)
    further = {r["label"] for r in changed} - {"mitosis", "imposter"}
    add(store.uri, dataset, table, AddOptions(labels={x: x for x in further}))
    return Store.open(store.uri)


def scored(store: Store) -> RunReport:
    return run(store, SPEC, OPTIONS)


def relabelled(n: int, row: Row) -> Row:
    return {**row, "label": ("mitosis", "imposter")[row["label"] == "mitosis"]} if n < 40 else row


@pytest.mark.parametrize(
    "change",
    [
        relabelled,
        lambda n, r: {**r, "domain": r["domain"].replace("dom0", "dom9")},
        lambda n, r: {**r, "case": f"new {r['case']}"},
    ],
    ids=["labels", "domains", "cases"],
)
def test_a_result_is_made_anew_once_the_other_dataset_has_changed(
    two: Store, change: Callable[[int, Row], Row]
) -> None:
    first = scored(two)
    assert (first.n_new, scored(two).n_new) == (2, 0)
    store = add_again(two, "e", change)
    again = scored(store)
    assert (again.n_new, scored(store).n_new) == (2, 0)
    fresh = scored_afresh(store)
    recorded = query(store, "select fold, eval_domain, metric, value from results order by all")
    assert recorded == fresh
    now = {r["domain"] for r in query(store, "select domain from annotations where dataset = 'e'")}
    assert {r["eval_domain"] for r in recorded} == {"all", *now}


def scored_afresh(store: Store) -> list[dict[str, object]]:
    """What a run that starts from nothing records."""
    ids = [r["result_id"] for r in query(store, "select result_id from _results")]
    store.delete("results", "result_id", ids)
    assert query(store, "from _results") == []
    scored(store)
    return query(store, "select fold, eval_domain, metric, value from results order by all")


def test_its_own_test_set_stays_valid_meanwhile(two: Store) -> None:
    own = RunOptions(splits=OPTIONS.splits)
    assert run(two, ManifestSpec("d"), own).n_new == 2
    assert run(add_again(two, "e", relabelled), ManifestSpec("d"), own).n_new == 0


def test_the_dataset_itself_is_no_other(two: Store) -> None:
    words = ("probes", "run", "d", "--eval-dataset", "d", "--store", two.uri)
    done = call_command(*words)
    assert done.code == 2
    assert "--eval-dataset d is what the probes are trained on" in done.err
    assert query(two, "from results") == []


@pytest.mark.parametrize("shared", [0, 5, 30])
def test_the_pair_that_is_scored_is_audited(two: Store, shared: int) -> None:
    """Rows of e on slides of d, known by their name: an oracle counts those that train has too."""
    mine = {r["slide"]: r["case"] for r in rows_of(two, "d")}
    names = sorted(mine)[:shared]
    place = dict(zip((f"e{k:02d}.tiff" for k in range(30)), names, strict=False))

    def moved(_: int, row: Row) -> Row:
        slide = place.get(row["slide"], row["slide"])
        return {**row, "slide": slide, "case": mine.get(slide, f"other {row['case']}")}

    store = add_again(two, "e", moved)
    plant(store, "strong", 12, 2.0)
    report = scored(store)
    assert report.elsewhere is not None
    theirs = query(store, "select slide, case_id from annotations where dataset = 'e'")
    for split, audit in zip(report.splits, report.elsewhere, strict=True):
        ids = {*split.train, *split.val}
        have = query(store, "select annotation_id, slide, case_id from annotations")
        train = [r for r in have if r["annotation_id"] in ids]
        slides, cases = ({r[k] for r in train} for k in ("slide", "case_id"))
        assert audit["shared_slides"] == pytest.approx(
            sum(r["slide"] in slides for r in theirs) / len(theirs)
        )
        assert audit["shared_cases"] == pytest.approx(
            sum(r["case_id"] in cases for r in theirs) / len(theirs)
        )
        assert (audit["shared_slides"] == 0) == (shared == 0)
    said = call_command(
        *("probes", "run", "d", "--eval-dataset", "e", "--fraction", "1", "--store"), store.uri
    ).err
    assert "of the other dataset's annotations" in said


def test_a_missing_label_is_an_error_and_a_further_one_a_note(two: Store) -> None:
    lacking = add_again(two, "e", lambda n, r: {**r, "label": "mitosis"})
    with pytest.raises(EmbedstoreError, match="has no annotation of"):
        scored(lacking)
    assert query(lacking, "from results") == []
    more = add_again(
        two, "e", lambda n, r: {**r, "label": ("mitosis", "imposter", "nucleolus")[n % 3]}
    )
    n_more = sum(r["label"] == "nucleolus" for r in rows_of(more, "e"))
    report = scored(more)
    assert any(f"{n_more} annotations of e are 'nucleolus'" in note for note in report.notes)
    n = query(more, "select distinct n_test from results where eval_domain = 'all'")
    assert n == [{"n_test": 160 - n_more}]
