"""The start of a console script: errors become messages and exit codes."""

import os
import signal
import sys
import threading
import time
import warnings
from types import FrameType

import typer

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.files.faults import is_of_lance, unanswered
from embedstore.terminal.printing import say_error
from embedstore.terminal.streams import finish_streams, is_full, settle_streams


def run_app(app: typer.Typer) -> None:
    """Run an app: an error goes to stderr and ends with 1, wrong usage with 2, Ctrl-C with 130.

    SIGTERM ends it as Ctrl-C does, with 143: what is under way is closed, the terminal restored.
    """
    stopped_by: list[int] = []
    told_at: list[float] = []

    def stop(number: int, frame: FrameType | None) -> None:
        told_at.append(time.monotonic())
        if _is_importing(frame) and told_at[-1] - told_at[0] < _PATIENCE_S:
            _say_again(number)
            return
        stopped_by.append(number)
        raise KeyboardInterrupt

    settle_streams()
    # What Pillow thinks of odd files is said in words of ours, by the verb that reads them.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
    try:
        _answered(app, stopped_by)
    except SystemExit as e:
        raise SystemExit(128 + stopped_by[0] if stopped_by and e.code else e.code) from None
    except OSError as e:  # while something was said of another error
        if not is_full(e):
            raise
        raise SystemExit(1) from None
    finally:
        finish_streams()


_AGAIN_S, _PATIENCE_S = 0.05, 10.0
"""How soon a signal is looked at again that came during an import, and how long in all."""


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a module is being imported: an error raised amid PyTorch's ends in an abort.

    Its C++ calls Python from where no error of Python's can be passed on.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _say_again(number: int) -> None:
    """Send a signal to this process again, a moment later."""
    again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _run(app: typer.Typer, stopped_by: list[int]) -> None:
    try:
        app()
    except Exception:
        # DuckDB and Lance make errors of their own of a KeyboardInterrupt in a callback of theirs.
        if stopped_by:
            raise KeyboardInterrupt from None
        raise


def _answered(app: typer.Typer, stopped_by: list[int]) -> None:
    try:
        _run(app, stopped_by)
    except EmbedstoreError as e:
        say_error(str(e))
        raise SystemExit(2 if isinstance(e, UsageError) else 1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except PermissionError as e:
        say_error(f"{e.strerror}: {e.filename}")
        raise SystemExit(1) from None
    except MemoryError:
        say_error(
            "there is not enough memory for this: a smaller part (--where, --limit), "
            "--max-memory where the command has it, or a larger machine"
        )
        raise SystemExit(1) from None
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; say nothing more
        raise SystemExit(1) from None
    except (OSError, RuntimeError, ValueError) as e:
        if isinstance(e, OSError) and is_full(e):
            say_error(f"the output cannot be written: {e.strerror}")
            raise SystemExit(1) from None
        if not is_of_lance(e):
            raise
        say_error(unanswered(e))
        raise SystemExit(1) from None
