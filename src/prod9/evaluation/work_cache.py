"""Parts of a long piece of work, kept on disk.

A run that was killed continues where it was, and the processes of a distributed run share the
parts. A part is named by everything that decides it, so that it is never out of date.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prod9 import __version__
from prod9.errors import Prod9Error
from prod9.evaluation.progress import tracked
from prod9.files import atomic_write
from prod9.runtime.distributed import any_of, barrier, is_main, share_of, world_size


@dataclass(frozen=True)
class WorkCache:
    """Arrays in a folder, which costs only time if it cannot be written; None: nothing is kept."""

    folder: Path | None = None

    def all_of(
        self, names: Sequence[str], make: Callable[[int], np.ndarray], what: str
    ) -> list[np.ndarray]:
        """Return the parts called ``names``; what is not kept is made.

        All processes of a distributed run call this; each makes its share and gets all parts.

        Args:
            names: whatever decides the content of each part.
            make: makes the part of an index.
            what: what is done, for the progress bar.
        """

        def one(index: int) -> np.ndarray:
            return self.one(names[index], lambda: make(index))

        if world_size() > 1 and self.folder is not None:
            missing = any_of([not self._path(name).exists() for name in names])
            parts = [index for index, each in enumerate(missing) if each]
            for index in tracked(share_of(parts), what, "parts"):
                one(index)
            barrier()
        return [one(index) for index in tracked(range(len(names)), what, "parts")]

    def one(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the part called ``name``; make it if it is not there or cannot be read."""
        if self.folder is None:
            return make()
        path = self._path(name)
        with suppress(OSError, ValueError, EOFError):
            return np.load(path, allow_pickle=False)
        part = make()
        # A part that a power failure has damaged cannot be read, and is made again.
        write = atomic_write(path, durable=False)
        with suppress(Prod9Error), write as temporary, temporary.open("wb") as file:
            np.save(file, part, allow_pickle=False)
        return part

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        # Another version may compute something else under the same name.
        digest = hashlib.sha256(f"{__version__} {name}".encode()).hexdigest()
        return self.folder / f"{digest}.npy"

    def clear(self) -> None:
        """Remove the folder: the work is done. All processes call this."""
        barrier()
        if self.folder is not None and is_main():
            shutil.rmtree(self.folder, ignore_errors=True)
