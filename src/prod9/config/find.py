"""Which file a ``--config`` means."""

import difflib
from importlib.resources import files
from pathlib import Path

from prod9.errors import Prod9Error

_SHIPPED = Path(str(files("prod9"))) / "configs"


def shipped() -> list[str]:
    """Return the configurations inside the package, such as ``maskgit/demo/stage1.yaml``."""
    return sorted(path.relative_to(_SHIPPED).as_posix() for path in _SHIPPED.rglob("*.yaml"))


def shipped_path(path: Path) -> Path | None:
    """Return the packaged file that a relative ``path`` ends in, if there is one.

    ``src/prod9/configs/maskgit/...``, ``maskgit/...`` and ``demo/...`` name packaged files, so
    that the documented commands work wherever prod9 is installed.
    """
    parts = path.parts
    if path.is_absolute() or ".." in parts:
        return None
    if "configs" in parts:
        parts = parts[parts.index("configs") + 1 :]
    if parts[:1] == ("demo",):
        parts = ("maskgit", *parts)
    name = "/".join(parts)
    return _SHIPPED / name if name in shipped() else None


def is_file(path: Path) -> bool:
    """Return whether ``path`` is a file.

    Raises:
        Prod9Error: it cannot be told, as when a folder on the way is closed.
    """
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
