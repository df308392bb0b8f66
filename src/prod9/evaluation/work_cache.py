"""Parts of a long piece of work, kept on disk until the whole is written.

Whoever is killed goes on where it was, and the processes of a distributed run share the parts. A
part is named by everything that decides it, so that it is never stale.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prod9 import __version__
from prod9.errors import Prod9Error
from prod9.evaluation.checksummed_arrays import FORMAT, read_sealed, write_sealed
from prod9.runtime.distributed import any_of, barrier, is_main, share_of, world_size


def _nothing(done: int) -> None:
    pass


@dataclass(frozen=True)
class WorkCache:
    """Arrays in a folder. A folder that cannot be written costs time, not the work."""

    folder: Path | None = None
    """None: nothing is kept, and every process makes everything."""

    def all_of(
        self,
        names: Sequence[str],
        make: Callable[[int], np.ndarray],
        on_part: Callable[[int], None] = _nothing,
    ) -> Iterator[np.ndarray]:
        """Give the parts called ``names``, in order.

        All processes of a distributed run come here, and each takes all parts; what one of them has
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
        kept = read_sealed(path)
        if kept is not None:
            return kept
        part = make()
        with suppress(Prod9Error):
            write_sealed(path, part)
        return part

    def clear(self) -> None:
        """Remove the folder: the whole is written. All processes come here."""
        barrier()
        if self.folder is not None and is_main():
            shutil.rmtree(self.folder, ignore_errors=True)
