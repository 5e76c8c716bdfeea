"""What the commands print: bad input, help, results on stdout and messages on stderr."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import cli
from tests.making.commands import call_command, run_command
from tests.making.slides import TinyDataset


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["embedstore", "add", "x", "--annotations", "none.json"],
            1,
            "no annotation file at none.json",
        ),
        (["embedstore", "add", "x"], 2, "--annotations"),
        (
            ["embedstore", "add", "x", "--annotations", "{csv}", "--label", "mitosis"],
            2,
            "NAME=VALUE",
        ),
        (["embedstore", "add", "x", "--annotations", "{csv}", "--mpp", "250"], 2, "um/px"),
        (["embedstore", "add", "x", "--annotations", "{csv}", "--positive", "yes"], 1, "labels: "),
        (["embedstore", "ingest", "tiny", "--model", "univ"], 2, "unknown model 'univ'; known: "),
        (["embedstore", "ingest", "none", "--model", "dinov2-vits14"], 1, "there: tiny"),
        (["embedstore", "ingest", "tiny"], 2, "--model"),
        (
            ["embedstore", "ingest", "tiny", "--model", "dinov2-vits14"],
            1,
            "--weights dinov2-vits14=PATH",
        ),
        (["embedstore", "sql", "selec 1"], 1, "syntax error"),
        (["embedstore", "sql", "drop view results"], 1, "read only"),
        (["embedstore", "sql", "select 1", "--format", "xml"], 2, "xml"),
        (["embedstore", "sql", "select 1", "--output", "x.doc"], 2, ".parquet"),
        (["embedstore", "sql", "select 1", "--output", "/nowhere/x.csv"], 1, "cannot be written"),
        (["embedstore", "status", "none"], 1, "no dataset 'none'"),
        (["embedstore", "status", "--store", "/nowhere"], 1, "no store at /nowhere"),
        (
            ["embedstore", "export", "tiny", "--model", "uni", "--output", "x.npz"],
            1,
            "there: timm:test_r",
        ),
        (
            ["embedstore", "export", "tiny", "--model", "timm:test_vit", "--output", "x.csv"],
            1,
            ".npz",
        ),
        (["embedstore", "export", "tiny", "--model", "timm:test_vit"], 2, "--output"),
        (
            ["embedstore", "import", "tiny", "none.npz", "--model", "mine"],
            1,
            "embeddings at none.npz",
        ),
        (["embedstore", "import", "tiny", "{csv}", "--model", "mine"], 1, ".h5"),
        (["embedstore", "import", "tiny", "x.npz"], 2, "--model"),
        (
            ["embedstore", "import", "tiny", "x.h5", "--model", "m", "--within", "far"],
            2,
            "--within",
        ),
        (
            ["embedstore", "neighbors", "tiny/x", "--model", "timm:test_vit"],
            1,
            "an id looks like tiny/a0",
        ),
        (["embedstore", "neighbors", "tiny/x", "--model", "timm:test_vit", "-k", "0"], 2, "-k"),
        (
            ["embedstore", "neighbors", "tiny/x", "--model", "timm:test_vit", "--metric", "x"],
            2,
            "l2",
        ),
        (["probes", "split", "tiny", "--fractions", "0.5,10"], 2, "percent? give 0.1"),
        (["probes", "split", "tiny", "--fractions", "half"], 2, "list of numbers"),
        (["probes", "split", "tiny", "--scheme", "kfold"], 2, "allowed: monte-carlo, cross-domain"),
        (["probes", "run", "tiny", "--fraction", "0.001"], 1, "fraction 0.001: too small"),
        (["probes", "run", "tiny", "--model", "uni"], 1, "there: timm:test_resnet, timm:test_vit"),
        (["probes", "run", "tiny", "--where", "x = ="], 2, "no SQL condition"),
        (["probes", "run", "tiny", "--method", "svm"], 2, "allowed: uni"),
        (["probes", "run", "tiny", "--method"], 2, "--method"),
    ],
)
def test_bad_input_has_one_message_and_the_right_code(
    embedded: str, tiny: TinyDataset, words: Any, code: int, said: str
) -> None:
    words = [w.format(csv=tiny.csv) if "{csv}" in w else w for w in words]
    done = call_command(*words, env={"EMBEDSTORE_URI": embedded})
    assert done.code == code, done.err
    flat = re.sub(r"[│\s]+", " ", done.err)
    assert said in flat
    assert done.out == ""
    assert "Traceback" not in done.err
    if code == 1:
        assert done.err.startswith("error: ")


@pytest.mark.parametrize(
    "words",
    [
        ["probes", "split", "tiny", "--fractions", "1", "--json"],
        ["embedstore", "status"],
        ["embedstore", "sql", "select * from annotations order by 1", "--format", "csv"],
        ["embedstore", "sql", "selec 1"],
        ["probes", "run", "tiny", "--method"],
    ],
)
def test_a_call_shows_what_a_process_shows(embedded: str, words: Any) -> None:
    env = {"EMBEDSTORE_URI": embedded, "COLUMNS": "80"}
    call_command(*words, env=env)  # from here on nothing is new
    assert call_command(*words, env=env) == run_command(*words, env=env)


def test_a_checkpoint_of_another_architecture(embedded: str, vits14_file: Path) -> None:
    done = call_command(
        "embedstore",
        "ingest",
        "tiny",
        "--model",
        "timm:resnet18",
        "--weights",
        f"timm:resnet18={vits14_file}",
        "--store",
        embedded,
    )
    assert done.code == 1
    assert "is not a resnet18 checkpoint" in done.err
    models = call_command(
        "embedstore", "sql", "select model from models", "--json", "--store", embedded
    )
    assert "timm:resnet18" not in {r["model"] for r in models.json()}


def test_results_on_stdout_messages_on_stderr(embedded: str) -> None:
    split = call_command(
        "probes", "split", "tiny", "--fractions", "1", "--json", "--store", embedded
    )
    rows = json.loads(split.out)
    assert [r["fold"] for r in rows] == [0, 1, 2, 3, 4]
    assert "leakage" in split.err
    assert "train" not in rows[0]


def test_sql_says_when_it_shows_a_part(embedded: str) -> None:
    done = call_command("embedstore", "sql", "select * from range(700)", "--store", embedded)
    assert "first 500 of 700 rows" in done.err


def commands_of(app: str) -> dict[str, Any]:
    group: Any = get_command(getattr(cli, f"{app}_app"))
    commands: dict[str, Any] = group.commands
    return commands


@pytest.mark.parametrize(("app", "n"), [("embedstore", 15), ("probes", 20), ("e2e", 2)])
def test_every_command_has_help_with_an_example_that_parses(app: str, n: int) -> None:
    shown = call_command(app, "--help").out
    commands = commands_of(app)
    assert len(commands) == n
    for name, command in commands.items():
        assert name in shown
        done = call_command(app, name, "-h", env={"COLUMNS": "200"})
        assert done.code == 0
        assert ("--store" in done.out) == (name not in ("demo", "models"))
        assert "--json" in done.out or name == "demo"
        (example,) = re.findall(r"^ Example: (.*?) *$", done.out, flags=re.M)
        words = shlex.split(example)
        assert words[:2] == [app, name]
        # Click accepts what it says: no unknown option, no missing argument.
        command.make_context(name, words[2:])


def test_demo_command_writes_what_add_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    (tmp_path / "demo" / "mine.txt").write_text("x")
    refused = call_command("embedstore", "demo", tmp_path / "demo")
    assert refused.code == 1
    assert "demo" in refused.err
    assert [p.name for p in (tmp_path / "demo").iterdir()] == ["mine.txt"]
