"""SQL over the store: every view answers, nothing can be written, widths may differ."""

import contextlib
import csv
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.embeddings.identity import check_model_name
from embedstore.errors import EmbedstoreError
from embedstore.files.output import to_csv, to_rows
from embedstore.store import Store
from embedstore.store.asking import run_sql, stream_sql
from embedstore.store.sql import connect, fetch_rows, identifier, literal, where_clause
from tests.making.commands import call_command

# The contract: these columns must be there, under these names.
CONTRACT = {
    "datasets": "dataset positive_label n_annotations source created_at",
    "annotations": "annotation_id dataset slide case_id domain label x_l0 y_l0 source_id status "
    "problem",
    "slides": "dataset slide case_id path width height mpp mpp_source scanner status problem",
    "models": "model arch dim pooling dtype patch_px mpp_out n_params weights weights_sha256 "
    "timm_version created_at",
    "embeddings": "annotation_id model dataset domain label slide vector",
    "manifests": "manifest_id dataset scheme group_by stratify where_sql seed fold fraction "
    "train_domain annotation_id role",
    "results": "run_id manifest_id dataset method params model weights_sha256 scheme group_by "
    "stratify where_sql target fold fraction train_domain eval_domain metric value ci_low ci_high "
    "n_train n_val n_test n_pos seed seconds created_at",
    "predictions": "run_id annotation_id role label score",
}


@pytest.mark.parametrize("view", CONTRACT)
def test_every_view_has_the_columns_of_the_contract(
    embedded: str, tmp_path: Path, view: Any
) -> None:
    for store in (Store.open(embedded), Store.open(str(tmp_path / "empty"), create=True)):
        table = run_sql(store, f"select * from {view}")
        assert set(CONTRACT[view].split()) <= set(table.column_names)


def test_two_widths_in_one_view_and_each_under_its_own_name(embedded: str) -> None:
    store = Store.open(embedded)
    rows = to_rows(
        run_sql(
            store,
            "select model, count(*) as n, min(len(vector)) as low, max(len(vector)) as high "
            "from embeddings group by model order by model",
        )
    )
    assert [(r["model"], r["n"]) for r in rows] == [("timm:test_resnet", 48), ("timm:test_vit", 48)]
    assert len({r["low"] for r in rows}) == 2
    assert all(r["low"] == r["high"] for r in rows)
    schema = run_sql(store, 'select * from "timm:test_vit" limit 1').schema
    assert pa.types.is_fixed_size_list(schema.field("vector").type)


@pytest.mark.parametrize(
    "sql",
    [
        "create table t as select 1",
        "drop view results",
        "copy annotations to '/tmp/x.csv'",
        "attach '/tmp/x.db'",
        "insert into _results select * from _results",
        "set threads = 1",
        "delete from _annotations",
        "install httpfs",
        "explain analyze copy (select 1) to '/tmp/x.csv'",
        "EXPLAIN  ANALYZE create table t as select 1",
        "pragma database_list",
        "select 1; select 2",
    ],
)
def test_only_one_reading_statement_is_taken(embedded: str, sql: str) -> None:
    with pytest.raises(EmbedstoreError, match="read only|one SQL statement"):
        run_sql(Store.open(embedded), sql)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("selec 1", "syntax error"),
        ("select * from nowhere", 'views: all_results, annotations,.*"timm:test_vit"'),
        ("select nothing from results", "nothing"),
        ("select 1/'a'", "a"),
        ("", "one SQL statement"),
    ],
)
def test_errors_in_sql_are_told(embedded: str, sql: str, said: str) -> None:
    with pytest.raises(EmbedstoreError, match=f"(?s){said}"):
        run_sql(Store.open(embedded), sql)


def test_sql_does_not_see_python_variables(embedded: str) -> None:
    secret = pa.table({"a": [1]})
    with pytest.raises(EmbedstoreError, match="secret"):
        run_sql(Store.open(embedded), "select * from secret")
    assert secret.num_rows == 1


def test_explain_and_describe_answer(embedded: str) -> None:
    assert run_sql(Store.open(embedded), "describe annotations").num_rows > 10
    assert run_sql(Store.open(embedded), "explain select 1").num_rows > 0


def test_output_forms_agree(embedded: str, tmp_path: Path) -> None:
    sql = "select annotation_id, x_l0, problem, votes from annotations order by 1 limit 5"
    table = call_command("embedstore", "sql", sql, "--store", embedded)
    assert "annotation_id" in table.out
    rows = call_command("embedstore", "sql", sql, "--json", "--store", embedded).json()
    assert len(rows) == 5
    text = call_command("embedstore", "sql", sql, "--format", "csv", "--store", embedded).out
    assert "\r" not in text
    parsed = list(csv.DictReader(io.StringIO(text)))
    assert [float(r["x_l0"]) for r in parsed] == [r["x_l0"] for r in rows]
    assert all(r["problem"] == "" for r in parsed)
    out = tmp_path / "x.parquet"
    assert call_command("embedstore", "sql", sql, "--output", out, "--store", embedded).code == 0
    assert pq.read_table(out).to_pylist() == rows
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]


def test_output_follows_links_and_never_replaces_what_is_no_file(
    embedded: str, tmp_path: Path
) -> None:
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    words = (
        "embedstore",
        "sql",
        "select 1 as a",
        "--store",
        embedded,
        "--format",
        "csv",
        "--output",
    )
    assert call_command(*words, tmp_path / "link.csv").code == 2  # not unasked
    assert (tmp_path / "real.csv").read_text() == "old"
    assert call_command(*words, tmp_path / "link.csv", "--overwrite").code == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "a\n1\n"
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit((tmp_path / "pipe").read_text)
        assert call_command(*words, tmp_path / "pipe").code == 0
        assert reader.result(30) == "a\n1\n"
    assert (tmp_path / "pipe").is_fifo()


def test_wide_results_are_read_down(embedded: str) -> None:
    done = call_command("embedstore", "sql", "select * from results limit 0", "--store", embedded)
    assert done.code == 0
    wide = ", ".join(f"{n} as column_{n}" for n in range(40))
    shown = call_command("embedstore", "sql", f"select {wide}", "--store", embedded).out
    assert all(f"column_{n} " in shown for n in range(40))


def test_json_is_json_whatever_the_values(embedded: str) -> None:
    table = run_sql(
        Store.open(embedded),
        "select 'nan'::double as a, sum(2) as b, 1.5::decimal(4,2) "
        "as c, date '2026-01-02' as d, [1, null] as e, {'x': 1} as f, 1 as a",
    )
    (row,) = to_rows(table)
    assert row == {
        "a": "NaN",
        "b": 2,
        "c": 1.5,
        "d": "2026-01-02",
        "e": [1, None],
        "f": {"x": 1},
        "a_1": 1,
    }
    json.dumps(row, allow_nan=False)
    assert to_csv(table).splitlines()[0] == "a,b,c,d,e,f,a_1"


@given(text=st.text(max_size=20))
def test_quoting_survives_any_text(text: Any) -> None:
    import duckdb

    text = text.replace("\x00", "")
    con = duckdb.connect()
    assert con.execute(f"select {literal(text)}").fetchone() == (text,)
    if text:
        assert con.execute(f"select 1 as {identifier(text)}").description[0][0] == text


@pytest.mark.parametrize(
    "where",
    [
        "label =",
        "1=1; drop table x",
        "label = 'a' order by 1",
        ")(",
        "1=1) or (1=1",
        "1=1] or [1=1",
    ],
)
def test_a_condition_must_be_one(where: str) -> None:
    with pytest.raises(EmbedstoreError, match="--where"):
        where_clause(where)


def test_conditions_are_kept(embedded: str) -> None:
    con = connect(Store.open(embedded))
    sql = f"select count(*) as n from annotations where {where_clause(chr(39) + 'a' + chr(39) + ' = domain -- x')}"
    assert fetch_rows(con, sql) == [{"n": 24}]
    assert where_clause(None) == where_clause("  ") == "true"


@pytest.mark.parametrize("name", ["results", "embeddings", "_x", " "])
def test_a_model_cannot_hide_a_view(name: str) -> None:
    with pytest.raises(EmbedstoreError, match="--as NAME"):
        check_model_name(name)


EFFECTS = (
    "copy (select 1 as a) to '{file}'",
    "copy (select 1 as a) to '{file}' (format parquet)",
    "select * from read_csv('{readable}')",
    "select * from read_text('{readable}')",
    "select * from read_blob('{readable}')",
    "select * from read_parquet('{readable}')",
    "select * from read_json('{readable}')",
    "select * from glob('{folder}/*')",
    "select * from '{readable}'",
    "from parquet_metadata('{readable}')",
    "from sniff_csv('{readable}')",
    "attach '{file}'",
    "export database '{folder}/out'",
    "import database '{folder}'",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "reset enable_external_access",
    "pragma enable_external_access",
    "create table t as select 1",
    "create macro m() as 1",
    "insert into _annotations select * from _annotations",
    "delete from _annotations",
    "update _annotations set label = 'x'",
    "drop view annotations",
    "vacuum",
    "checkpoint",
)
"""What has an effect in DuckDB, or reads what is not the store's."""


@pytest.mark.parametrize("effect", EFFECTS)
def test_sql_reaches_nothing_but_the_store(embedded: str, tmp_path: Path, effect: str) -> None:
    """Alone, in a common table, in a sub-select, and in the condition of verbs that take one."""
    readable, file = tmp_path / "secret.csv", tmp_path / "written"
    readable.write_text("a\nsecret\n")
    before = sorted(tmp_path.iterdir())
    effect = effect.format(readable=readable, file=file, folder=tmp_path)
    store = Store.open(embedded)
    n = run_sql(store, "select count(*) as n from annotations")["n"][0].as_py()
    alone, *unused = (effect, f"with x as ({effect}) select 1")
    queries = [alone, f"with x as ({effect}) select * from x", f"select (select a from ({effect}))"]
    for query in [*queries, *(f"explain analyze {q}" for q in queries)]:
        with pytest.raises(EmbedstoreError) as told:
            run_sql(store, query)
        assert "secret" not in str(told.value).replace(str(readable), "")
    for query in unused:  # what a query does not use DuckDB does not do
        with contextlib.suppress(EmbedstoreError):
            assert run_sql(store, query).to_pylist() == [{"1": 1}]
    for where in (f"exists ({effect})", f"label in ({effect})", f"1 = 1) or exists ({effect}"):
        for words in (
            ("probes", "split", "tiny", "--where", where),
            ("embedstore", "neighbors", "tiny/a/0", "--model", "x", "--where", where),
        ):
            refused = call_command(*words, "--store", embedded)
            assert refused.code in (1, 2)
            assert "Traceback" not in refused.err
    assert sorted(tmp_path.iterdir()) == before
    assert run_sql(store, "select count(*) as n from annotations")["n"][0].as_py() == n


def test_files_are_read_where_a_query_is_allowed_to_and_never_written(
    embedded: str, tmp_path: Path
) -> None:
    (tmp_path / "more.csv").write_text("label,weight\nmitotic figure,2\n")
    read = f"select a.label, weight from annotations a join read_csv('{tmp_path}/more.csv') using (label)"
    store = Store.open(embedded)
    assert set(run_sql(store, read, files=True)["weight"].to_pylist()) == {2}
    shown = call_command("embedstore", "sql", read, "--files", "--json", "--store", embedded)
    assert shown.json()[0] == {"label": "mitotic figure", "weight": 2}
    refused = call_command("embedstore", "sql", read, "--store", embedded)
    assert (refused.code, "--files" in refused.err) == (1, True)
    for query in (
        f"with x as (copy (select 1) to '{tmp_path}/w.csv') select 1",
        f"explain analyze with x as (copy (select 1) to '{tmp_path}/w.csv') select * from x",
    ):
        with contextlib.suppress(EmbedstoreError):
            run_sql(store, query, files=True)
    used = f"with x as (copy (select 1) to '{tmp_path}/w.csv') select * from x"
    with pytest.raises(EmbedstoreError, match="read files, not write them"):
        run_sql(store, used, files=True)
    assert [p.name for p in tmp_path.iterdir()] == ["more.csv"]


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
@pytest.mark.parametrize("query", ["select * from range(45000) t(n)", "select 1 as n where false"])
def test_rows_are_written_batch_by_batch_as_all_at_once(
    embedded: str, tmp_path: Path, ending: str, query: str
) -> None:
    reader = stream_sql(Store.open(embedded), query, max_memory=2 * 10**8)
    printed = tmp_path / f"rows.{ending}"
    done = call_command(
        "embedstore",
        "sql",
        query,
        "--output",
        printed,
        "--max-memory",
        "200MB",
        "--store",
        embedded,
    )
    assert done.code == 0, done.err
    whole = run_sql(Store.open(embedded), query)
    if ending == "csv":
        assert printed.read_text() == to_csv(whole)
    elif ending == "json":
        assert json.loads(printed.read_text()) == to_rows(whole)
    else:
        assert pq.read_table(printed).equals(whole)
    sizes = [batch.num_rows for batch in reader]
    assert sum(sizes) == whole.num_rows
    assert max(sizes, default=0) <= 20_480


def test_what_fails_on_the_way_is_said_and_leaves_no_file(embedded: str, tmp_path: Path) -> None:
    late = "select 1 // (n - 44000) as a from range(45000) t(n)"
    done = call_command(
        "embedstore", "sql", late, "--output", tmp_path / "a.csv", "--store", embedded
    )
    assert done.code == 1
    assert "error: SQL:" in done.err
    assert "Division by zero" in done.err
    assert not list(tmp_path.iterdir())
