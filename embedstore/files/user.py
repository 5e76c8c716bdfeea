"""A user whom the system does not know, as in many containers: given a name and a home."""

import getpass
import os
import tempfile
from pathlib import Path


def settle_user() -> None:
    """Name the user and a home in the environment, where neither it nor the system does.

    Libraries ask for both to place their caches, and fail where there is no answer.
    """
    uid = os.getuid() if hasattr(os, "getuid") else 0
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = os.environ["LOGNAME"] = f"uid{uid}"
    try:
        Path.home()
    except (KeyError, RuntimeError):
        home = Path(tempfile.gettempdir()) / f"home-of-uid{uid}"
        home.mkdir(mode=0o700, exist_ok=True)
        os.environ["HOME"] = str(home)
