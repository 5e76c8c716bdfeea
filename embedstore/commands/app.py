"""The app `embedstore`, put together."""

from collections.abc import Callable

import typer

from embedstore.commands.reading import (
    export_command,
    models_command,
    neighbors_command,
    sql_command,
    status_command,
)
from embedstore.commands.writing import add_command, demo_command, import_command, ingest_command
from embedstore.terminal.options import SETTINGS

embedstore_app = typer.Typer(
    name="embedstore", help="Embeddings of annotated cells in a store that answers SQL.", **SETTINGS
)
COMMANDS: dict[str, Callable[..., None]] = {
    "add": add_command,
    "ingest": ingest_command,
    "status": status_command,
    "models": models_command,
    "sql": sql_command,
    "export": export_command,
    "import": import_command,
    "neighbors": neighbors_command,
    "demo": demo_command,
}
for _name, _command in COMMANDS.items():
    embedstore_app.command(_name)(_command)
