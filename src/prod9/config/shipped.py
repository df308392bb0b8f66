"""The configurations inside the package, and which file a ``--config`` means."""

import difflib
import re
from importlib.resources import files
from pathlib import Path

from prod9.errors import Prod9Error

_FOLDER = Path(str(files("prod9"))) / "configs"


def shipped() -> list[str]:
    """Return the configurations inside the package, such as ``maskgit/demo/stage1.yaml``."""
    return sorted(path.relative_to(_FOLDER).as_posix() for path in _FOLDER.rglob("*.yaml"))


def shipped_path(path: Path) -> Path | None:
    """Return the packaged file that a relative ``path`` names, if there is one.

    ``src/prod9/configs/maskgit/...``, ``maskgit/...`` and ``demo/...`` name packaged files, so
    that the documented commands work wherever prod9 is installed.
    """
    if path.is_absolute():
        return None
    name = re.sub(r"^(.*/)?configs/", "", path.as_posix())
    return next((_FOLDER / each for each in (name, f"maskgit/{name}") if each in shipped()), None)


def is_file(path: Path) -> bool:
    """Return whether ``path`` is a file; a Prod9Error where a folder on the way is closed."""
    try:
        return path.is_file()
    except OSError as error:
        raise Prod9Error(f"cannot read {path}: {error.strerror or error}.") from error


def resolve_config(path: Path) -> Path:
    """Return ``path`` if it exists (relative to the current folder), else the packaged file.

    Raises:
        Prod9Error: neither exists, or it is a folder.
    """
    if is_file(path):
        return path
    if path.is_dir():
        raise Prod9Error(f"{path} is a folder; --config needs a YAML file.")
    if found := shipped_path(path):
        return found
    near = difflib.get_close_matches(path.as_posix(), shipped(), n=3, cutoff=0.4) or shipped()
    raise Prod9Error(
        f"the configuration {path} does not exist; nearest in the package: {', '.join(near)}."
    )
