"""Files that are either whole or not there: write under a temporary name, then rename."""

import hashlib
import os
import platform
import re
import shutil
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from prod9.errors import Prod9Error

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES = Path("/proc/self/ns/pid")
_TEMPORARY = re.compile(r"\.([0-9a-f]{8})-(\d+)-\d+\.tmp\..*", re.DOTALL)
_ABANDONED_SECONDS = 24 * 3600
"""Nobody writes one file for so long without touching it."""
_tidied: set[Path] = set()


def _machine() -> str:
    """Return eight digits for those processes that can tell whether each other lives.

    Not the host's name alone: containers, and machines from one image, may have the same, and
    count their processes each from 1.
    """
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(_BOOT.read_text(encoding="ascii"))
    with suppress(OSError):
        parts.append(str(_PROCESSES.stat().st_ino))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:8]


_MACHINE = _machine()


def temporary_for(path: Path) -> Path:
    """Return the name, beside ``path``, under which this thread writes it first."""
    # Nobody else's, not even another thread's that writes the same file. The name's end stays as it
    # is: nibabel and numpy choose the format by it ("x.nii.gz").
    own = f"{_MACHINE}-{os.getpid()}-{threading.get_ident()}"
    return path.with_name(f".{own}.tmp.{path.name}")


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed had begun to write in ``folder``.

    Of processes one cannot ask (other machines', other containers', of before a restart) only what
    nobody has touched for a day. Once in a process: to list a large folder before each of its files
    would take long.
    """
    if folder in _tidied or os.name != "posix":  # elsewhere one cannot ask whether a process lives
        return
    _tidied.add(folder)
    with suppress(OSError):  # litter is no reason to stop
        for path in list(folder.iterdir()):
            found = _TEMPORARY.fullmatch(path.name)
            if found is None or _may_be_written(path, found[1], int(found[2])):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _may_be_written(path: Path, machine: str, process: int) -> bool:
    if machine == _MACHINE:
        return _lives(process)
    return time.time() - path.lstat().st_mtime < _ABANDONED_SECONDS


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    A block that fails leaves nothing behind, and a reader never sees half a file.

    Raises:
        Prod9Error: the folder cannot be made or written, or the disk is full.
    """
    temporary = temporary_for(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        yield temporary
        sync(temporary)  # the new name must not get to the disk first
        temporary.replace(path)
    except OSError as error:
        raise Prod9Error(
            f"cannot write {path}: {_reason(error)}; free some space or choose another folder."
        ) from error
    finally:
        with suppress(OSError):  # what failed above may fail again; the first error counts
            temporary.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    # numpy counts what the disk took, and loses why it took no more.
    return error.strerror or f"the disk did not take all of it ({error})"


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
    """Add ``content`` to a file whose end is whole; it stays whole, unless the process dies.

    Raises:
        Prod9Error: the file cannot be written, or the disk is full; the file is as it was.
    """
    try:
        with path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                rest = memoryview(content)
                while rest:  # a disk that is nearly full takes a part
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise Prod9Error(
            f"cannot write {path}: {_reason(error)}; free some space or choose another folder."
        ) from error


def hexdigest(path: Path, algorithm: str) -> str:
    """Return the hexadecimal digest of a file (``algorithm`` as in :mod:`hashlib`)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def require_writable(folder: Path) -> None:
    """Prove that a file can be written in ``folder``, before hours are spent.

    Folders that had to be made for it are removed again: nothing is left behind.

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
        with suppress(OSError):  # deepest first; whoever has put something in keeps it
            for path in made:
                path.rmdir()
