"""Building a token store: in shards, by any number of processes, in any number of attempts."""

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prod9 import __version__
from prod9.data.tokens.store import TokenStore, TokenStoreKey, reopen, sound_meta
from prod9.errors import Prod9Error
from prod9.files import atomic_write, hexdigest, sync, write_errors
from prod9.runtime.distributed import any_of, barrier, is_main, rank, share_of

Encode = Callable[[int, int], Iterable[Tensor]]
"""(first, one past the last) -> the tokens (B, gd, gh, gw) of these volumes, in order, in parts."""

SHARD_CELLS = 1 << 16
"""Of a shard, if it has more than one volume: what is lost at most when a process dies."""
_SHARD = re.compile(r"(\d{12})-([0-9a-f]{64})\.tokens")
_ABANDONED_SECONDS = 7 * 24 * 3600
"""Shards untouched for so long, while another store of the split is there, are removed."""


def open_or_build(
    root: Path,
    key: TokenStoreKey,
    *,
    names: Sequence[str],
    labels: np.ndarray,
    class_names: tuple[str, ...],
    grid: tuple[int, int, int],
    codebook_size: int,
    encode: Encode,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> TokenStore:
    """Open the store of ``key`` under ``root``; build it if it is missing, damaged or different.

    A build that was killed goes on where it was, with any number of processes: the result is the
    same to the bit. All processes of a distributed run call this.

    Args:
        root: Folder of stores.
        key: What decides the tokens.
        names: One per volume.
        labels: One per volume, indices into ``class_names``.
        class_names: In label order.
        grid: Tokens per axis (gd, gh, gw).
        codebook_size: Tokens lie in 0..codebook_size - 1.
        encode: Gives the tokens of the volumes from one to another, in parts.
        progress: Told how many volumes were encoded by this process, and how many it has to.
        say: Told of what an earlier run left, and of damage.

    Raises:
        Prod9Error: the folder cannot be written.
        ValueError: ``encode`` gives other numbers, grids or codes than announced.
    """
    path = root / key.folder_name
    wanted: dict[str, Any] = {
        "key": asdict(key),
        "codebook_size": codebook_size,
        "dtype": np.min_scalar_type(codebook_size - 1).name,
        "shape": [len(names), *grid],
        "names": list(names),
        "class_names": list(class_names),
    }
    if not any_of([not _is_there(path, wanted)])[0]:
        if is_main():
            _remove_shards(path)  # of a run that was killed just before it did
        return reopen(path)
    # Shards of other sizes are none of this store's.
    sizes = hashlib.sha256(json.dumps([wanted, SHARD_CELLS]).encode()).hexdigest()
    shards = _Shards(
        root / f".{path.name}-{sizes[:12]}",
        (len(names), *grid),
        np.dtype(wanted["dtype"]),
        codebook_size,
        encode,
    )
    with write_errors(path):
        shards.folder.mkdir(parents=True, exist_ok=True)
        shards.fill(progress, say)
        if is_main():
            if not _is_there(path, wanted):  # another run may have been quicker
                _commit(path, shards, wanted, labels, say)
            _remove_shards(path)
    barrier()
    try:
        return reopen(path)
    except OSError as error:
        raise Prod9Error(
            f"{path} is there for the main process but not for process {rank()}; all machines of "
            "a distributed run must share the disk of output_dir."
        ) from error


def _is_there(path: Path, wanted: dict[str, Any]) -> bool:
    meta = sound_meta(path)
    return meta is not None and all(meta[name] == value for name, value in wanted.items())


def _commit(
    path: Path,
    shards: "_Shards",
    wanted: dict[str, Any],
    labels: np.ndarray,
    say: Callable[[str], None],
) -> None:
    """Make the store of its shards, wait until it is on the disk, and put it in its place."""
    whole = shards.folder / "store"
    shutil.rmtree(whole, ignore_errors=True)  # of a run that was killed here
    whole.mkdir(parents=True)
    shards.join(whole / "tokens.npy", say)
    np.save(whole / "labels.npy", labels.astype(np.int64), allow_pickle=False)
    digests = {name: hexdigest(whole / name, "sha256") for name in ("tokens.npy", "labels.npy")}
    meta = {**wanted, "sha256": digests, "prod9_version": __version__}
    (whole / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    for each in (*whole.iterdir(), whole):
        sync(each)
    if path.exists():
        shutil.rmtree(path)
    whole.rename(path)
    sync(path.parent)


def _remove_shards(path: Path) -> None:
    """Remove the shards of a finished store, and old ones of other stores of the same split."""
    split = path.name.split("-")[0]
    for parts in path.parent.glob(f".{split}-*"):
        with suppress(OSError):  # another process may be quicker
            old = time.time() - parts.stat().st_mtime > _ABANDONED_SECONDS
            if old or parts.name.startswith(f".{path.name}-"):
                shutil.rmtree(parts, ignore_errors=True)


@dataclass(frozen=True)
class _Shards:
    """The tokens of some volumes in a row, a file each, which outlive the process that made them.

    A shard appears by one rename and its name holds the SHA-256 of its bytes: one that is there is
    finished, and a damaged one is recognised. Where shards begin depends on the sizes of the whole
    alone, so that any number of processes, now or after a restart, makes the same ones.
    """

    folder: Path
    shape: tuple[int, ...]
    """(N, gd, gh, gw)."""
    dtype: np.dtype
    codebook_size: int
    encode: Encode

    @property
    def starts(self) -> range:
        """First volume of each shard."""
        return range(0, self.shape[0], max(1, SHARD_CELLS // max(1, math.prod(self.shape[1:]))))

    def count(self, starts: Sequence[int]) -> int:
        """Return how many volumes are in the shards that begin at ``starts``."""
        return sum(min(self.starts.step, self.shape[0] - start) for start in starts)

    def fill(self, progress: Callable[[int, int], None], say: Callable[[str], None]) -> None:
        """Make this process's share of the missing shards, and wait for the other processes."""
        there = self._there()
        # Judged together, before one of them writes: a shared disk may show one less than another.
        lacking = any_of([start not in there for start in self.starts])
        missing = [start for start, each in zip(self.starts, lacking, strict=True) if each]
        if there and is_main():
            kept = self.shape[0] - self.count(missing)
            say(f"{kept} of {self.shape[0]} volumes were encoded by an earlier run; going on")
        own, done = share_of(missing), 0
        progress(done, self.count(own))
        for start in own:
            for count in self._make(start):
                done += count
                progress(done, self.count(own))
        barrier()

    def join(self, path: Path, say: Callable[[str], None]) -> None:
        """Write all shards, one after the other, as one ``.npy`` file.

        A shard that is damaged or gone is made again, and ``say`` told.
        """
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
        there = self._there()
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in self.starts:
                shard = there.get(start)
                content = b"" if shard is None else shard.read_bytes()
                if shard is None or hashlib.sha256(content).hexdigest() not in shard.name:
                    say(f"{self.folder}: the shard from volume {start} is torn; encoding it again")
                    if shard is not None:
                        shard.unlink()
                    for _ in self._make(start):
                        pass
                    content = self._there()[start].read_bytes()
                file.write(content)

    def _there(self) -> dict[int, Path]:
        """Return the shards' files by first volume."""
        found = (_SHARD.fullmatch(path.name) for path in sorted(self.folder.glob("*.tokens")))
        return {int(name[1]): self.folder / name[0] for name in found if name is not None}

    def _make(self, start: int) -> Iterator[int]:
        """Encode a shard and write it; yield of every part how many volumes it was."""
        shard = np.empty((self.count([start]), *self.shape[1:]), self.dtype)
        done = 0
        for part in self.encode(start, start + len(shard)):
            codes = part.cpu().numpy()
            if done + len(codes) > len(shard) or codes.shape[1:] != self.shape[1:]:
                raise ValueError(f"tokens {codes.shape} do not fit into a store of {self.shape}")
            if codes.size and (codes.min() < 0 or codes.max() >= self.codebook_size):
                raise ValueError(f"tokens exceed the codebook of {self.codebook_size}")
            shard[done : done + len(codes)] = codes
            done += len(codes)
            yield len(codes)
        if done != len(shard):
            raise ValueError(f"{done} volumes were encoded, {len(shard)} were announced")
        digest = hashlib.sha256(shard.data).hexdigest()
        with atomic_write(self.folder / f"{start:012d}-{digest}.tokens") as temporary:
            temporary.write_bytes(shard.data)
