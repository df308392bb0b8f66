"""The files that a run is resumed from: the last checkpoint, and the one before it."""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple, cast

from prod9.errors import Prod9Error
from prod9.files import write_errors
from prod9.torch_files import read_plain, write_plain

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
_NEXT = "next.ckpt"


class Found(NamedTuple):
    """A whole checkpoint."""

    path: Path
    content: dict[str, Any]
    torn: Path | None
    """The newer one, ``last.ckpt``, where it cannot be read."""


def write_last(path: Path, content: dict[str, Any]) -> None:
    """Write ``path``; what was there before is its neighbour ``previous.ckpt`` afterwards.

    There is no moment without a whole checkpoint, and a full disk costs none.

    Raises:
        Prod9Error: it cannot be written; all is as it was.
    """
    new = path.with_name(_NEXT)
    write_plain(new, content)
    with write_errors(path):
        if path.exists():
            path.replace(path.with_name(PREVIOUS))
        new.replace(path)


def exists_in(folder: Path) -> bool:
    """Whether there is a checkpoint to resume from, whole or torn."""
    return (folder / LAST).exists() or (folder / PREVIOUS).exists()


def read_last(folder: Path) -> Found:
    """Read the newest whole checkpoint of ``folder``.

    Raises:
        Prod9Error: there is none.
    """
    torn: Path | None = None
    first: Prod9Error | None = None
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            return Found(path, _read(path), torn)
        except Prod9Error as error:
            torn, first = torn or path, first or error
    raise first or Prod9Error(
        f"there is no checkpoint {folder / LAST} to resume from; start without --resume."
    )


def _read(path: Path) -> dict[str, Any]:
    remedy = "resume from an older one renamed to last.ckpt"
    content = read_plain(path, remedy)
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
    except Exception as error:  # zipfile raises many types, depending on what is damaged
        torn = str(error)
    if torn is not None:  # PyTorch writes checksums but does not compare them
        raise Prod9Error(f"{path} cannot be read: it is torn ({torn}); {remedy}.")
    if not isinstance(content, dict):
        raise Prod9Error(f"{path} is not a checkpoint; remove it from the run's folder.")
    return cast("dict[str, Any]", content)
