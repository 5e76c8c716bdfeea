"""An app of commands: each by its name, under what it is for, with --version and --quiet."""

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Annotated, Any

import typer

from embedstore.terminal.grouped import grouped

SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": "rich",
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

Command = Callable[..., None]


def make_app(name: str, about: str, groups: Mapping[str, Mapping[str, Command]]) -> typer.Typer:
    """Return the app of a console script: commands by name, in groups by what one does with them.

    A command may take options in groups (see `grouped`).
    """
    app = typer.Typer(name=name, help=about, **SETTINGS)

    def show_version(asked: bool) -> None:
        if asked:
            typer.echo(f"{name} {version('mitosis-embedstore')}")
            raise typer.Exit

    @app.callback()
    def options(
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=show_version, is_eager=True, help="Print the version."
            ),
        ] = False,
    ) -> None:
        """Take what comes before a command."""

    for group, commands in groups.items():
        for command_name, command in commands.items():
            put(app, group, command_name, command)
    return app


def put(app: typer.Typer, group: str, name: str, command: Command) -> None:
    """Add a command to an app, shown under a group.

    Its docstring is its help, each paragraph one line: they break where the terminal ends.
    """
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    said = "\n\n".join(" ".join(p.split()) for p in paragraphs)
    app.command(name, rich_help_panel=group, help=said)(grouped(command))
