"""Files that are either whole or not there: write under a temporary name, then rename."""

import hashlib
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from prod9.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    A block that fails leaves nothing behind, and a reader never sees half a file.

    Raises:
        UserError: the folder cannot be made or written, or the disk is full.

    """
    # Nobody else's, not even another thread's that writes the same file. The name's end stays as it
    # is: nibabel and numpy choose the format by it ("x.nii.gz").
    own = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{own}.tmp.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder."
        ) from error
    finally:
        with suppress(OSError):  # what failed above may fail again; the first error counts
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def hexdigest(path: Path, algorithm: str) -> str:
    """Return the hexadecimal digest of a file (``algorithm`` as in :mod:`hashlib`)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def require_writable(folder: Path) -> None:
    """Prove that a file can be written in ``folder``, before hours are spent.

    Folders that had to be made for it are removed again: nothing is left behind.

    Raises:
        UserError: it cannot.

    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to the folder {folder}: {error.strerror or error}; choose another "
            "folder (output_dir, --output)."
        ) from error
    finally:
        with suppress(OSError):  # deepest first; whoever has put something in keeps it
            for path in made:
                path.rmdir()
