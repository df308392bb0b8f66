"""Files that are either whole or not there: write under a temporary name, then rename."""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from prod9.errors import Prod9Error

_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp\..*", re.DOTALL)
_ABANDONED_SECONDS = 24 * 3600
"""No writer leaves its temporary file untouched for so long."""
_checked: set[Path] = set()


def temporary_for(path: Path) -> Path:
    """Return a new name, beside ``path``, for what is renamed to ``path`` when it is complete."""
    # The name's end stays as it is: nibabel and numpy choose the format by it ("x.nii.gz").
    return path.with_name(f".{uuid4().hex}.tmp.{path.name}")


def remove_leftovers(folder: Path, *, sole_writer: bool = False) -> None:
    """Remove temporary files and folders of killed processes from ``folder``.

    Those are the ones that nobody has touched for a day, or all of them where this process is the
    ``sole_writer`` of the folder. Otherwise a folder is listed once per process.
    """
    if folder in _checked and not sole_writer:
        return
    _checked.add(folder)
    with suppress(OSError):  # a leftover is no reason to stop
        for path in list(folder.iterdir()):
            if _TEMPORARY.fullmatch(path.name) is None:
                continue
            if not sole_writer and time.time() - path.lstat().st_mtime < _ABANDONED_SECONDS:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path) -> Generator[None]:
    """Turn an ``OSError`` of the block, which writes ``path``, into a :class:`Prod9Error`."""
    try:
        yield
    except OSError as error:
        # numpy counts what the disk took, and loses why it took no more.
        reason = error.strerror or f"the disk did not take all of it ({error})"
        raise Prod9Error(
            f"cannot write {path}: {reason}; free some space or choose another folder."
        ) from error


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Generator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    A block that fails leaves nothing behind, and a reader never sees half a file, nor after a power
    failure. That waits for the disk, up to half a second a file: where a damaged file is noticed
    and made again, or many are synchronised at the end, ``durable`` may be False.

    Raises:
        Prod9Error: the folder cannot be made or written, or the disk is full.
    """
    temporary = temporary_for(path)
    with write_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            yield temporary
            if durable:
                sync(temporary)  # the new name must not get to the disk first
            temporary.replace(path)
        finally:
            with suppress(OSError):  # what failed above may fail again; the first error counts
                temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_whole(path: Path, content: bytes) -> None:
    """Append ``content`` to a file, all of it or, with an error, nothing."""
    with write_errors(path), path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            rest = memoryview(content)
            while rest:  # a disk that is nearly full takes a part
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)
            raise


def hexdigest(path: Path, algorithm: str) -> str:
    """Return the hexadecimal digest of a file (``algorithm`` as in :mod:`hashlib`)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def require_writable(folder: Path) -> None:
    """Prove that a file can be written in ``folder``, and leave nothing behind.

    Raises:
        Prod9Error: it cannot.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        probe = temporary_for(folder / "write-probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Prod9Error(
            f"cannot write to the folder {folder}: {error.strerror or error}; choose another "
            "folder (output_dir, --output)."
        ) from error
    finally:
        with suppress(OSError):  # deepest first; a folder that is no longer empty stays
            for path in made:
                path.rmdir()
