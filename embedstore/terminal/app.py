"""An app of commands: each by its name, with --version."""

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


def make_app(name: str, about: str, commands: Mapping[str, Callable[..., None]]) -> typer.Typer:
    """Return the app of a console script; a command may take options in groups (see `grouped`)."""
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

    for command_name, command in commands.items():
        app.command(command_name)(grouped(command))
    return app
