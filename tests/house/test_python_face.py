"""Python and the command line are one: the same verbs, options by the same names and defaults."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

import probes
from embedstore import Store
from embedstore.commands.app import embedstore_app
from probes.commands.app import probes_app

PRINTED = {"store", "as_json", "json", "format", "help", "quiet"}
"""Where a command works and how it prints, which in Python is the object and what it returns."""
NOT_THERE = {
    "embedstore": {"import": "import_"},
    "probes": {},
}
OTHERWISE = {
    # sql's rows are a frame, which writes itself; nobody is asked before a removal.
    "sql": {"output", "overwrite"},
    "predict": {"output", "overwrite"},
    "remove": {"yes"},
    "models": {"action", "check"},
    "compare": {"by_fold"},
    "explore": {"serve", "port"},
    "reproduce": {"every"},
}
ABSENT = {"probes": {"manifest", "paper"}, "embedstore": set[str]()}
"""manifest moves files; paper is e2e's."""
NAMES = {("ingest", "name"): "as_"}


def verbs() -> list[tuple[str, str, Callable[..., Any], Callable[..., Any]]]:
    """Each command with the function or method of its name."""
    found = []
    for app, commands, home in (
        ("embedstore", embedstore_app, Store),
        ("probes", probes_app, probes),
    ):
        for command in commands.registered_commands:
            name = str(command.name)
            if name not in ABSENT[app]:
                assert command.callback is not None
                of = getattr(home, NOT_THERE[app].get(name, name))
                found.append((app, name, command.callback, of))
    return found


@pytest.mark.parametrize(
    ("app", "name", "command", "function"), verbs(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_verb_has_the_options_of_its_command(
    app: str, name: str, command: Callable[..., Any], function: Callable[..., Any]
) -> None:
    skipped = PRINTED | OTHERWISE.get(name, set()) | {"context"}
    theirs = {
        NAMES.get((name, p.name), p.name): p.default
        for p in inspect.signature(command).parameters.values()
        if p.name not in skipped
    }
    ours = {
        p.name: p.default
        for p in inspect.signature(function).parameters.values()
        if p.name not in skipped | {"self"}
    }
    assert set(ours) == set(theirs)
    for key, default in theirs.items():
        # None stands for nothing asked, which in Python may be said as what it comes to.
        if default not in (None, inspect.Parameter.empty):
            assert str(getattr(default, "value", default)) == str(ours[key]), key
    assert function.__doc__
    assert get_type_hints(function)["return"].__name__ == "Rows"


def test_the_packages_are_imported_at_once_and_tell_their_names() -> None:
    """What a notebook completes is there; nothing heavy is imported for it."""
    code = (
        "import sys, embedstore, probes; "
        "heavy = {'pandas', 'numpy', 'lance', 'torch', 'duckdb', 'typer'} & set(sys.modules); "
        "assert not heavy, heavy; "
        "assert {'Store'} <= set(dir(embedstore)) and {'run', 'gap'} <= set(dir(probes)); "
        "import probes.runs.options, probes.reports, probes.studies.compare; "
        "assert callable(probes.run) and callable(probes.report) and callable(probes.compare)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        probes.runn  # noqa: B018
