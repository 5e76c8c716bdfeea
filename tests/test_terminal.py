"""What a user meets on the terminal: groups of commands, --quiet, nearest names, what to do next."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.main import get_command

import cli
from embedstore.errors import nearest
from embedstore.terminal import printing
from tests.making.commands import call_command, run_command
from tests.making.slides import TinyDataset

APPS = ("embedstore", "probes", "e2e")
VIT = ("--model", "timm:test_vit", "--weights", "timm:test_vit=random", "--patch-px", "64")


def commands() -> list[tuple[str, str, Any]]:
    found = []
    for app in APPS:
        group: Any = get_command(getattr(cli, f"{app}_app"))
        found += [(app, name, command) for name, command in group.commands.items()]
    return found


@pytest.mark.parametrize(
    ("app", "name", "command"), commands(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_command_stands_in_a_group_and_can_be_quiet(
    app: str, name: str, command: Any
) -> None:
    assert command.rich_help_panel
    assert "--quiet" in {o for p in command.params for o in p.opts}
    # A paragraph is one line, which breaks where the terminal ends and nowhere else.
    assert command.help
    assert not re.search(r"[^\n]\n[^\n]", command.help)


def test_quiet_says_nothing_but_the_result_and_errors(tmp_path: Path, tiny: TinyDataset) -> None:
    store = ("--store", tmp_path / "s")
    add = ("embedstore", "add", "tiny", "--annotations", tiny.csv, "--slides", tiny.slides)
    quiet = call_command(*add, "--json", "--quiet", *store)
    assert quiet.code == 0
    assert quiet.err == ""
    loud = call_command(*add, "--json", *store)
    assert loud.out == quiet.out
    assert "read 48 annotations" in loud.err
    wrong = call_command("embedstore", "status", "other", "-q", *store)
    assert wrong.code == 1
    assert wrong.err.startswith("error: no dataset 'other'")


WRONG = {
    "dataset": (("embedstore", "status", "tinny"), "did you mean 'tiny'?"),
    "model": (("embedstore", "ingest", "tiny", "--model", "virchov2"), "did you mean 'virchow2'?"),
    "embedded model": (
        ("probes", "run", "tiny", "--model", "timm:test_vitt"),
        "did you mean 'timm:test_vit'?",
    ),
    "method": (("probes", "run", "tiny", "--method", "logrek"), "did you mean 'logreg'?"),
    "grouping": (("probes", "split", "tiny", "--group-by", "slides"), "did you mean 'slide'?"),
    "scheme": (("probes", "split", "tiny", "--scheme", "montecarlo"), "did you mean 'monte-carlo'"),
    "option": (("probes", "run", "tiny", "--modle", "x"), "--model"),
    "command": (("embedstore", "statsu"), "Did you mean 'status'?"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_name_is_answered_with_the_nearest(embedded: str, what: str) -> None:
    words, said = WRONG[what]
    store = () if what in ("option", "command") else ("--store", embedded)
    done = call_command(*words, *store)
    assert done.code in (1, 2)
    assert said in done.err


def test_what_resembles_nothing_is_answered_with_nothing() -> None:
    assert nearest("qqqq", ["uni", "virchow"]) == ""
    assert nearest("unii", ["uni", "virchow"]) == "; did you mean 'uni'?"


def test_status_tells_what_to_do_next_from_nothing_to_the_report(
    tmp_path: Path, tiny: TinyDataset
) -> None:
    """Each step is the one that was said before."""
    uri = str(tmp_path / "s")

    def steps() -> list[str]:
        said = call_command("embedstore", "status", "--store", uri).err
        return [x.removeprefix("next: ") for x in said.splitlines() if x.startswith("next: ")]

    def do(*words: object) -> None:
        done = call_command(*words, "--store", uri)
        assert done.code == 0, done.err

    do("embedstore", "add", "tiny", "--annotations", tiny.csv)
    assert steps() == ["embedstore add tiny --annotations FILE --slides DIR"]
    do("embedstore", "add", "tiny", "--annotations", tiny.csv, "--slides", tiny.slides)
    assert steps() == ["embedstore ingest tiny --model MODEL"]
    do("embedstore", "ingest", "tiny", *VIT, "--limit", 40)
    assert steps() == ["embedstore ingest tiny --model timm:test_vit", "probes gap tiny"]
    do("embedstore", "ingest", "tiny", *VIT)
    assert steps() == ["probes gap tiny"]
    do("probes", "gap", "tiny", "--method", "prototype")
    assert steps() == ["probes report tiny --output report"]
    do("embedstore", "ingest", "tiny", *VIT, "--as", "other")
    assert steps() == ["probes gap tiny"]
    do("probes", "gap", "tiny", "--method", "prototype")
    assert steps() == ["probes compare tiny"]
    do("probes", "compare", "tiny")
    assert steps() == ["probes report tiny --output report"]
    do("embedstore", "remove", "tiny", "--yes")
    assert steps() == ["embedstore add DATASET --annotations FILE --slides DIR"]


SHOWN = [
    ("embedstore", "status"),
    ("embedstore", "status", "tiny"),
    ("embedstore", "models"),
    ("embedstore", "sql", "select * from results limit 3"),
    ("probes", "split", "tiny", "--fractions", "1"),
    ("probes", "run", "tiny", "--method", "prototype"),
    ("probes", "run", "tiny", "--method", "prototype", "--scheme", "cross-domain"),
    ("probes", "compare", "tiny", "--a", "prototype:timm:test_vit"),
    ("probes", "gap", "tiny", "--method", "prototype"),
    ("probes", "likeness", "tiny"),
]


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_tables_fit_80_columns(
    embedded: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if words[:2] == ("probes", "compare"):
        call_command("probes", "run", "tiny", "--method", "prototype", "--store", embedded)
    monkeypatch.setattr(printing, "_console", lambda: Console(width=80, file=sys.stdout))
    store = () if "models" in words else ("--store", embedded)
    done = call_command(*words, *store)
    assert done.code == 0, done.err
    assert done.out.strip()
    assert max(map(len, done.out.splitlines())) <= 80
    headers = [x for x in done.out.splitlines() if x.startswith("┃")]
    assert len(headers) <= len([x for x in done.out.splitlines() if x.startswith("┡")]) * 2


def test_the_shell_completes_commands_and_options() -> None:
    for line, expected in (("embedstore sta", "status"), ("probes run --frac", "--fraction")):
        app = line.split()[0]
        env = {
            f"_{app.upper()}_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }
        done = run_command(app, env=env)
        assert expected in done.out.split(), done.err
