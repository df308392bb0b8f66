"""Where prod9 keeps what it has downloaded, computed or measured, for all runs of a user."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """``$PROD9_CACHE``, else ``$XDG_CACHE_HOME/prod9``, else ``~/.cache/prod9``; may not exist."""
    if own := os.environ.get("PROD9_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "prod9"
