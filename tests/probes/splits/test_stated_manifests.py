"""A manifest by its id: what contradicts it is refused, what is exported comes back as it was."""

from pathlib import Path

import pyarrow.csv as pacsv
import pytest

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.store import Store
from probes.runs import RunOptions, run
from probes.splits.candidates import candidates
from probes.splits.files import import_manifest, manifest_table
from probes.splits.manifests import ensure_splits
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import call_command
from tests.making.slides import write_csv
from tests.making.stores import plant, plant_two, query

SPEC = ManifestSpec("d", group_by="case", stratify="label", where="domain <> 'dom2'", seed=3)
STATED = ["--group-by", "case", "--stratify", "label", "--where", "domain <> 'dom2'", "--seed", "3"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = plant_two(str(tmp_path / "s"), 300, 40)
    plant(made, "strong", 12, 2.0)
    return made


def manifest_of(store: Store, spec: ManifestSpec = SPEC) -> str:
    (split,), _ = ensure_splits(store, candidates(store, spec), folds=[0], fractions=[1.0])
    return split.row.manifest_id


@pytest.mark.parametrize(
    "words",
    [
        ["--group-by", "slide"],
        ["--stratify", "domain"],
        ["--where", "domain <> 'dom1'"],
        ["--seed", "0"],
        ["--scheme", "cross-domain"],
    ],
    ids=lambda w: w[0],
)
@pytest.mark.parametrize("verb", [["probes", "run"], ["e2e", "run"]], ids=" ".join)
def test_an_option_that_contradicts_the_manifest_is_refused(
    store: Store, verb: list[str], words: list[str]
) -> None:
    done = call_command(*verb, "d", "--manifest", manifest_of(store), *words, "--store", store.uri)
    assert done.code == 2
    assert words[0] in done.err
    assert query(store, "from results") == []


def test_an_option_that_says_what_the_manifest_says_is_fine(store: Store) -> None:
    manifest = manifest_of(store)
    words = ("probes", "run", "d", "--manifest", manifest, "--json", "--store", store.uri)
    bare, stated = call_command(*words), call_command(*words, *STATED)
    assert bare.json() == stated.json()
    assert {r["manifest_id"] for r in bare.json()} == {manifest}


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        ManifestSpec("d", where="label is not null and domain <> 'dom0'"),
        ManifestSpec("d", group_by="annotation"),
        ManifestSpec("d", scheme="cross-domain", group_by="case"),
    ],
    ids=["all", "where", "annotation", "domains"],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_exported_manifest_comes_back_as_what_it_was(
    store: Store, tmp_path: Path, spec: ManifestSpec, ending: str
) -> None:
    manifest = candidates(store, spec)
    splits, _ = ensure_splits(store, manifest, folds=[0, 1], fractions=[0.5, 1.0])
    file = tmp_path / f"m.{ending}"
    words = ("probes", "manifest", "export", manifest.manifest_id, file, "--store", store.uri)
    assert call_command(*words).code == 0
    store.delete("splits", "split_id", [s.split_id for s in splits])
    rows, same = import_manifest(store, "d", file)
    assert same == manifest.manifest_id
    assert {r.group_by for r in rows} == {spec.group_by}
    again, _ = ensure_splits(store, manifest, folds=[0, 1], fractions=[0.5, 1.0])
    for before, after in zip(splits, again, strict=True):
        assert before.split_id == after.split_id
        for role in ("train", "val", "test"):
            assert before.ids(role).to_pylist() == after.ids(role).to_pylist()
        assert before.row.overlapping_patches == after.row.overlapping_patches


def test_a_changed_one_keeps_what_stays_on_one_side(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    table = manifest_table(store, manifest_of(store))
    is_fewer = [k for k, r in enumerate(table.to_pylist()) if r["role"] != "val" or k % 2]
    pacsv.write_csv(table.take(is_fewer), file)
    rows, changed = import_manifest(store, "d", file)
    assert {(r.scheme, r.group_by) for r in rows} == {("imported", "case")}
    report = run(store, ManifestSpec("d"), RunOptions(splits=Asked(manifest=changed)))
    assert {r.ci_by for r in report.rows} == {"case"}
    text = file.read_text().replace('"case"', '"annotation"').replace(",case,", ",annotation,")
    file.write_text(text)
    assert import_manifest(store, "d", file)[1] != changed


def test_one_domain_is_said_to_be_one(tmp_path: Path) -> None:
    cells = [
        {"slide": f"s{k % 6}.tiff", "x": k, "y": k, "label": ("mitosis", "imposter")[k % 2]}
        for k in range(60)
    ]
    uri = str(tmp_path / "s")
    add(uri, "d", write_csv(tmp_path / "c.csv", cells), AddOptions())
    store = Store.open(uri)
    for scheme in ("leave-one-domain-out", "cross-domain", "cross-domain-size-matched"):
        manifest = candidates(store, ManifestSpec("d", scheme=scheme))
        with pytest.raises(EmbedstoreError, match="needs two domains, and 'd' has one, 'd'"):
            ensure_splits(store, manifest, folds=[0], fractions=[1.0])


def test_a_test_set_of_one_label_names_what_gives_every_part_each_label(tmp_path: Path) -> None:
    cells = [
        {"slide": f"s{k // 9}.tiff", "x": k, "y": k, "label": "mitosis" if k < 5 else "imposter"}
        for k in range(72)
    ]
    uri = str(tmp_path / "s")
    add(uri, "d", write_csv(tmp_path / "c.csv", cells), AddOptions())
    with pytest.raises(EmbedstoreError, match="--stratify label"):
        ensure_splits(
            Store.open(uri),
            candidates(Store.open(uri), ManifestSpec("d", group_by="annotation", seed=0)),
            folds=range(40),
            fractions=[1.0],
        )


@pytest.mark.parametrize("scheme", ["cross-domain", "cross-domain-size-matched"])
def test_domains_cannot_be_learnt_where_some_are_held_out(store: Store, scheme: str) -> None:
    with pytest.raises(UsageError, match="use --scheme monte-carlo or predefined"):
        run(store, ManifestSpec("d", scheme=scheme), RunOptions(target="domain"))
    assert query(store, "from splits") == []


@pytest.mark.parametrize("group_by", ["annotation", "slide", "case"])
@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_size_matched_means_equal_sizes_however_grouped(
    store: Store, group_by: str, fraction: float
) -> None:
    spec = ManifestSpec("d", scheme="cross-domain-size-matched", group_by=group_by)
    manifest = candidates(store, spec)
    splits, _ = ensure_splits(store, manifest, folds=range(3), fractions=[fraction])
    assert len({s.row.train_domain for s in splits}) == 3
    assert len({(s.row.fold, s.row.n_train) for s in splits}) == 3  # one size a fold
    unmatched, _ = ensure_splits(
        store,
        candidates(store, ManifestSpec("d", scheme="cross-domain", group_by=group_by)),
        folds=range(3),
        fractions=[1.0],
    )
    assert len({(s.row.fold, s.row.n_train) for s in unmatched}) > 3
    if fraction == 1:
        smallest = [min(s.row.n_train for s in unmatched if s.row.fold == f) for f in range(3)]
        assert all(s.row.n_train <= smallest[s.row.fold] for s in splits)


def test_a_domain_with_the_name_of_a_sum_is_told_apart(tmp_path: Path) -> None:
    names = ("all", "in domain", "out of domain")
    cells = [
        {
            "slide": f"s{k % 15}.tiff",
            "x": k,
            "y": k,
            "label": ("mitosis", "imposter")[k // 3 % 2],
            "domain": names[k % 3],
        }
        for k in range(150)
    ]
    uri = str(tmp_path / "s")
    report = add(uri, "d", write_csv(tmp_path / "c.csv", cells), AddOptions())
    assert any("'all' is stored as 'domain all'" in note for note in report.notes)
    store = Store.open(uri)
    plant(store, "strong", 8, 2.0)
    spec = ManifestSpec("d", scheme="cross-domain", group_by="annotation")
    run(store, spec, RunOptions(splits=Asked(folds=[0])))
    rows = query(
        store,
        "select train_domain, eval_domain, n_test from results where metric = 'auroc' order by all",
    )
    of_domain = {(r["train_domain"], r["eval_domain"]): r["n_test"] for r in rows}
    assert len(of_domain) == len(rows)
    assert {d for d, _ in of_domain} == {f"domain {n}" for n in names}
    sums = {d for _, d in of_domain} - {f"domain {n}" for n in names}
    assert sums <= {"all"}
    for d, e in of_domain:
        if e == "all":
            assert of_domain[d, e] == sum(n for (t, x), n in of_domain.items() if t == d and x != e)
