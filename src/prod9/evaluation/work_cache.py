"""Parts of a long piece of work, kept on disk until the whole is written.

A run that was killed goes on where it was, and the processes of a distributed run share the parts.
A part is named by everything that decides it, so that it is never stale.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prod9 import __version__
from prod9.data.volume_files.npz import read_npy
from prod9.errors import Prod9Error
from prod9.files import atomic_write, hexdigest
from prod9.runtime.console import warn
from prod9.runtime.distributed import any_of, barrier, is_main, share_of, world_size

FORMAT = 1
"""Raised when files are written in another way; to be part of their names."""
_DIGEST_BYTES = 32
"""Of SHA-256, behind the array, where numpy does not look."""


def write_checksummed(path: Path, array: np.ndarray) -> None:
    """Write an array as ``.npy`` with its digest behind it, whole or not at all.

    Raises:
        Prod9Error: the folder cannot be made or written, or the disk is full.
    """
    with atomic_write(path) as temporary:
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        digest = bytes.fromhex(hexdigest(temporary, "sha256"))
        with temporary.open("ab") as file:
            file.write(digest)


def read_checksummed(path: Path) -> np.ndarray | None:
    """Return what :func:`write_checksummed` wrote; None if it is missing or damaged (warned of)."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() == content[-_DIGEST_BYTES:]:
        with suppress(Prod9Error):
            return read_npy(path)
    warn(f"{path} is damaged; what it held is made again")
    return None


@dataclass(frozen=True)
class WorkCache:
    """Arrays in a folder. A folder that cannot be written costs time, not the work."""

    folder: Path | None = None
    """None: nothing is kept, and every process makes everything."""

    def all_of(
        self,
        names: Sequence[str],
        make: Callable[[int], np.ndarray],
        on_part: Callable[[int], None] = lambda done: None,
    ) -> Iterator[np.ndarray]:
        """Give the parts called ``names``, in order.

        All processes of a distributed run call this, and each gets all parts; what one of them has
        made, or an earlier run, is read.

        Args:
            names: of the parts: whatever decides their content.
            make: makes the part of an index.
            on_part: told how many this process has made of its share.
        """
        if world_size() > 1 and self.folder is not None:
            missing = any_of([not self._path(name).exists() for name in names])
            parts = [index for index, each in enumerate(missing) if each]
            for done, index in enumerate(share_of(parts), 1):
                self.one(names[index], lambda index=index: make(index))
                on_part(done)
            barrier()
        for index, name in enumerate(names):
            yield self.one(name, lambda index=index: make(index))

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        # Another version may compute something else under the same name.
        content = f"{__version__} {FORMAT} {name}"
        return self.folder / f"{hashlib.sha256(content.encode()).hexdigest()}.npy"

    def one(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Give the part called ``name``; make it if it is not there, or damaged."""
        if self.folder is None:
            return make()
        path = self._path(name)
        part = read_checksummed(path)
        if part is None:
            part = make()
            with suppress(Prod9Error):
                write_checksummed(path, part)
        return part

    def clear(self) -> None:
        """Remove the folder: the whole is written. All processes call this."""
        barrier()
        if self.folder is not None and is_main():
            shutil.rmtree(self.folder, ignore_errors=True)
