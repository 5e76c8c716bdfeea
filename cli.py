"""The command line: three apps, one console script each; nothing imports this.

Each package owns its commands. `probes paper` may train end to end, so it lives in e2e.
"""

try:
    from e2e.commands import e2e_app, paper_command
    from embedstore.commands.app import embedstore_app
    from embedstore.terminal.app import put
    from embedstore.terminal.entry import run_app
    from probes.commands.app import probes_app
except KeyboardInterrupt:
    raise SystemExit(130) from None  # before there is anything to say

put(probes_app, "Ask how good a model is", "paper", paper_command)


def embedstore() -> None:
    """Run the `embedstore` command."""
    run_app(embedstore_app)


def probes() -> None:
    """Run the `probes` command."""
    run_app(probes_app)


def e2e() -> None:
    """Run the `e2e` command."""
    run_app(e2e_app)
