"""The commands that keep a store in order: doctor, remove."""

import sys
from typing import Annotated

import typer

from embedstore.errors import UsageError
from embedstore.terminal.options import JsonOption, StoreOption
from embedstore.terminal.printing import print_json, print_table, say
from embedstore.terminal.progress import progress_bar


def doctor_command(
    mend: Annotated[
        bool, typer.Option("--mend", help="Mend what can be mended; nothing else may write.")
    ] = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Examine a store: keys, orphans, what is stale, values, digests; say what mends each.

    Every row is read. The SHA-256 of each data file is kept in the store, so that a later call
    finds damage that the file system does not tell. Ends with 1 where something is left to mend.
    --mend deletes only what can be made again, or serves nothing.

    Example: embedstore doctor --mend
    """
    from embedstore import doctor
    from embedstore.store import Store

    opened = Store.open(store, write=mend)
    with progress_bar("examining", "rows") as on_progress:
        findings = doctor.examine(opened, on_progress)
    if mend:
        findings = doctor.mend(opened, findings)
    rows = [f.row() for f in findings]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(f"store {store}", rows)
    left = [f for f in findings if not f.is_mended]
    able = sum(f.can_be_mended for f in left)
    say(
        f"{len(findings)} things found, {len(findings) - len(left)} mended"
        + (f"; --mend mends {able} of them" if able else "")
        if findings
        else "the store is whole"
    )
    if left:
        raise typer.Exit(1)


def remove_command(
    dataset: Annotated[str, typer.Argument(help="A dataset that `embedstore add` registered.")],
    model: Annotated[
        str | None, typer.Option(help="Only this model's embeddings, and what probes made of them.")
    ] = None,
    slide: Annotated[
        str | None, typer.Option(help="Only the annotations on, or patches of, this slide.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="Only annotations that meet a condition on the view."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would go; remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Remove a dataset or a part of it, with all that hangs on it, and give back its space.

    With annotations go their embeddings, kept patches, and the splits they are in with the results
    and predictions made of those. Asks on a terminal, counted; slides and annotation files stay.
    It happens as one step: interrupted, it is finished by the next command that writes. A command
    that reads the store at that very moment may have to be started again.

    Example: embedstore remove midog --model resnet50-imagenet
    """
    from embedstore.store import Store
    from embedstore.store.removal import Part, plan_removal, remove

    part = Part(model, slide, where)
    opened = Store.open(store, write=not dry_run)
    removal = plan_removal(opened, dataset, part)
    rows = [{"dataset": dataset, "of": what, "n": n} for what, n in removal.counts.items()]
    print_json(rows) if as_json else print_table(f"{dataset}: to be removed", rows)
    if dry_run:
        say("nothing is removed: --dry-run")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nothing is removed: give --yes where nobody can be asked")
        if not typer.confirm(f"Remove all of this from {store}?", err=True):
            say("nothing is removed")
            raise typer.Exit(1)
    freed = remove(opened, removal)
    say(f"removed; {freed / 1e6:,.1f} MB given back")
