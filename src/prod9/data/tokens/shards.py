"""Tokens in shards, which outlive the process that made them.

A shard is the tokens of some volumes in a row, as one file. It appears by one rename and its name
holds the SHA-256 of its bytes: one that is there is finished, and one that the machine tore when it
went down is recognised. Where shards begin depends on the sizes of the whole alone, so that any
number of processes, now or after a restart, makes the same ones.
"""

import hashlib
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from prod9.files import atomic_write
from prod9.runtime.distributed import any_of, barrier, is_main, share_of

Encode = Callable[[int, int], Iterable[Tensor]]
"""(first, one past the last) -> the tokens (B, gd, gh, gw) of these volumes, in order, in parts."""

_CELLS = 1 << 16
"""Of a shard, if it has more than one volume: what is lost at most when a process dies."""
_NAME = re.compile(r"(\d{12})-([0-9a-f]{64})\.tokens")


def volumes_per_shard(grid: tuple[int, ...]) -> int:
    """Return how many volumes of a grid share a shard, at least one."""
    return max(1, _CELLS // max(1, math.prod(grid)))


@dataclass(frozen=True)
class Shards:
    """The shards of one store, finished and missing."""

    folder: Path
    shape: tuple[int, ...]
    """(N, gd, gh, gw)."""
    dtype: np.dtype
    codebook_size: int

    @property
    def starts(self) -> range:
        """First volume of each shard."""
        return range(0, self.shape[0], volumes_per_shard(self.shape[1:]))

    def _stop(self, start: int) -> int:
        return min(start + self.starts.step, self.shape[0])

    def fill(
        self, encode: Encode, progress: Callable[[int, int], None], say: Callable[[str], None]
    ) -> None:
        """Make this process's share of the shards that are missing, and wait for the others.

        Args:
            encode: gives the tokens of some volumes.
            progress: told (volumes encoded here, volumes to be encoded here).
            say: told how many are there already, of an earlier attempt.

        Raises:
            Prod9Error: the folder cannot be written.
            ValueError: ``encode`` gives other numbers, grids or codes than announced.
        """
        there = self._there()
        # Judged together, before one of them writes: a shared disk may show one less than another.
        lacking = any_of([start not in there for start in self.starts])
        missing = [start for start, each in zip(self.starts, lacking, strict=True) if each]
        if there and is_main():
            kept = self.shape[0] - sum(self._stop(start) - start for start in missing)
            say(f"{kept} of {self.shape[0]} volumes were encoded by an earlier run; going on")
        own = share_of(missing)
        total, done = sum(self._stop(start) - start for start in own), 0
        progress(done, total)
        for start in own:
            for count in self._make(start, encode):
                done += count
                progress(done, total)
        barrier()

    def join(self, path: Path, encode: Encode, say: Callable[[str], None]) -> str:
        """Write all shards, one after the other, as one ``.npy`` file; return its SHA-256.

        A shard that is torn or gone is made again, and ``say`` told. Needs memory for one shard.
        """
        header = io.BytesIO()
        description = {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(header, description)
        digest = hashlib.sha256(header.getvalue())
        with path.open("wb") as file:
            file.write(header.getvalue())
            there = self._there()
            for start in self.starts:
                shard = self._read(there.get(start))
                if shard is None:
                    say(f"{self.folder}: the shard from volume {start} is torn; encoding it again")
                    for _ in self._make(start, encode):
                        pass
                    shard = self._read(self._there()[start])
                    assert shard is not None
                digest.update(shard)
                file.write(shard)
        return digest.hexdigest()

    def _there(self) -> dict[int, Path]:
        """Return the shards' files by first volume."""
        if not self.folder.is_dir():
            return {}
        found = (_NAME.fullmatch(path.name) for path in sorted(self.folder.iterdir()))
        return {int(name[1]): self.folder / name[0] for name in found if name is not None}

    def _read(self, path: Path | None) -> bytes | None:
        """Return a shard's bytes; remove it if they are not those of its name."""
        if path is None:
            return None
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() in path.name:
            return content
        path.unlink()
        return None

    def _make(self, start: int, encode: Encode) -> Iterator[int]:
        """Encode a shard and commit it; tell of every part how many volumes it was."""
        stop, grid = self._stop(start), self.shape[1:]
        shard = np.empty((stop - start, *grid), self.dtype)
        done = 0
        for part in encode(start, stop):
            codes = part.cpu().numpy()
            end = done + len(codes)
            if end > len(shard) or codes.shape[1:] != grid:
                raise ValueError(
                    f"tokens {codes.shape} do not fit into volumes {start + done}..{stop - 1} of a "
                    f"store of {self.shape}"
                )
            if codes.size and (codes.min() < 0 or codes.max() >= self.codebook_size):
                raise ValueError(
                    f"tokens {codes.min()}..{codes.max()} exceed the codebook of "
                    f"{self.codebook_size}"
                )
            shard[done:end] = codes
            done = end
            yield len(codes)
        if done != len(shard):
            raise ValueError(f"{done} volumes were encoded, {len(shard)} were announced")
        digest = hashlib.sha256(shard.data).hexdigest()
        with atomic_write(self.folder / f"{start:012d}-{digest}.tokens") as temporary:
            temporary.write_bytes(shard.data)
