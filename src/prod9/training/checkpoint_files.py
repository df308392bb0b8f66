"""The files that a run is resumed from: the last checkpoint, and the one before it."""

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple, cast

from prod9.errors import Prod9Error
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
    new, previous = path.with_name(_NEXT), path.with_name(PREVIOUS)
    write_plain(new, content)
    try:
        if path.exists():
            _move_over(path, previous)
        new.replace(path)
    except OSError as error:
        raise Prod9Error(
            f"cannot write {path}: {error.strerror or error}; see whether its folder is writable."
        ) from error


def _move_over(path: Path, previous: Path) -> None:
    """Call ``path`` also ``previous``; where a file cannot have two names, no longer ``path``."""
    second = previous.with_name(f".{previous.name}")
    try:
        second.unlink(missing_ok=True)
        os.link(path, second)
    except OSError:
        path.replace(previous)
    else:
        second.replace(previous)
        second.unlink(missing_ok=True)  # two names of one file: the system leaves both


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


def _is_whole(path: Path) -> bool:
    """Whether the archive's checksums hold.

    PyTorch does not look at those that it writes: a lost block would be taken for zeros.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    # Of a part's own header: not its name, no text (ValueError), a compression that nobody knows.
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, struct.error, RuntimeError):
        return False


def _read(path: Path) -> dict[str, Any]:
    remedy = "resume from an older one renamed to last.ckpt"
    content = read_plain(path, remedy)
    if not _is_whole(path):
        raise Prod9Error(f"{path} cannot be read: it is torn (a checksum differs); {remedy}.")
    if not isinstance(content, dict):
        raise Prod9Error(f"{path} is not a checkpoint; remove it from the run's folder.")
    return cast("dict[str, Any]", content)
