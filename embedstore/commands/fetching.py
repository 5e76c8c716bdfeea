"""The command `fetch`: a public dataset by its name."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedstore.commands.adding import print_added
from embedstore.errors import UsageError
from embedstore.terminal.options import JsonOption, StoreOption
from embedstore.terminal.printing import print_json, print_table, say, say_notes
from embedstore.terminal.progress import progress_bar

if TYPE_CHECKING:
    from embedstore.archives.planning import Plan


def fetch_command(
    name: Annotated[
        str | None, typer.Argument(help="A public dataset, as --list names it.")
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List what is known by name; needs no network.")
    ] = False,
    dest: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where it goes; default: data/NAME.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="'5 slides', or a pattern of their names; the tables come anyway."),
    ] = None,
    add: Annotated[
        bool, typer.Option("--add/--no-add", help="Register it in the store, once it is there.")
    ] = True,
    yes: Annotated[
        bool, typer.Option("--yes", help="Accept licence and size; do not ask.")
    ] = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Fetch a public dataset by name from its archive, checked, and add it to the store.

    Licence and citation come first, as the archive has them, with the size, and are asked about.
    Every file is checked against the archive's checksum. Broken off, the same command goes on where
    it stopped; files that are there already are checked and kept.

    Example: embedstore fetch midog++ --only "5 slides" --dest midogpp
    """
    from embedstore.archives.fetch import fetch
    from embedstore.archives.planning import plan, public

    if list_ or name is None:
        _list(as_json=as_json)
        return
    is_added = add and bool(public(name).add)
    asked = plan(name, only)
    for line in asked.terms():
        say(line)
    _check_accepted(yes)
    folder = Path(dest) if dest is not None else Path("data") / name
    with progress_bar("fetching", "MB") as bar:
        done = fetch(asked, folder, lambda n, total: bar(n // 10**6, -(-total // 10**6)))
    if not is_added:
        rows = [done.row(name)]
        print_json(rows) if as_json else print_table("fetched", rows)
    say_notes(done.notes)
    say(f"{done.n_new:,} files fetched to {folder}, {done.n_there:,} were there")
    if is_added:
        _add(store, asked, folder, as_json=as_json)


def _add(store: str, asked: "Plan", folder: Path, *, as_json: bool) -> None:
    """Add what was fetched, and print what the store has of it."""
    from embedstore.add.fetched import add_fetched
    from embedstore.store import Store

    with progress_bar("opening slides", "slides") as on_slide:
        report = add_fetched(store, asked, folder, on_slide)
    print_added(Store.open(store), report, as_json=as_json)


def _list(*, as_json: bool) -> None:
    """Print what is known by name."""
    from embedstore.archives.planning import catalogue

    rows = catalogue()
    if as_json:
        print_json(rows)
        return
    shown = [{**r, "gb": r["gb"] or ""} for r in rows]
    print_table("public datasets", shown, ("name", "about", "licence", "gb"))
    say("sizes are asked of the archives; --json has where each lies, and how to cite it")


def _check_accepted(yes: bool) -> None:
    """Ask whether to go on; UsageError where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nothing is fetched: give --yes where nobody can be asked")
    if not typer.confirm("Fetch it under this licence?", err=True):
        say("nothing is fetched")
        raise typer.Exit(1)
