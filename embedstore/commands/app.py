"""The app `embedstore`, put together."""

from embedstore.commands.adding import add_command, demo_command
from embedstore.commands.embedding import import_command, ingest_command
from embedstore.commands.fetching import fetch_command
from embedstore.commands.looking import (
    explore_command,
    neighbors_command,
    sheet_command,
    tag_command,
)
from embedstore.commands.reading import (
    export_command,
    models_command,
    sql_command,
    status_command,
)
from embedstore.commands.upkeep import doctor_command, remove_command
from embedstore.terminal.app import make_app

embedstore_app = make_app(
    "embedstore",
    "Embeddings of annotated cells in a store that answers SQL.",
    {
        "Fill a store": {
            "add": add_command,
            "ingest": ingest_command,
            "import": import_command,
            "demo": demo_command,
            "fetch": fetch_command,
        },
        "Look into it": {
            "status": status_command,
            "sql": sql_command,
            "neighbors": neighbors_command,
            "sheet": sheet_command,
            "tag": tag_command,
            "explore": explore_command,
            "export": export_command,
            "models": models_command,
        },
        "Keep it": {
            "doctor": doctor_command,
            "remove": remove_command,
        },
    },
)
