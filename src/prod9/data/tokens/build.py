"""Building a token store: in shards, by any number of processes, in any number of attempts."""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prod9 import __version__
from prod9.data.tokens.store import TokenStore, TokenStoreKey, reopen, sound_meta
from prod9.files import atomic_write, hexdigest, sync, write_errors
from prod9.runtime.console import say
from prod9.runtime.distributed import any_of, barrier, is_main, share_of

Encode = Callable[[int, int], Iterable[Tensor]]
"""(first, one past the last) -> the tokens (B, gd, gh, gw) of these volumes, in order, in parts."""

SHARD_CELLS = 1 << 16
"""Of a shard, if it has more than one volume: what is lost at most when a process dies."""
_SHARD = re.compile(r"(\d{12})-([0-9a-f]{64})\.tokens")


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
) -> TokenStore:
    """Open the store of ``key`` under ``root``; build it if it is missing, damaged or different.

    A build that was killed is continued, with any number of processes: the result is the same to
    the bit. All processes of a distributed run call this.

    Args:
        root: folder of stores.
        key: decides the tokens.
        names: one per volume.
        labels: one per volume, indices into ``class_names``.
        class_names: in label order.
        grid: tokens per axis (gd, gh, gw).
        codebook_size: tokens lie in 0..codebook_size - 1.
        encode: returns the tokens of the volumes from one to another, in parts.
        progress: called with the volumes that this process has encoded, and with its share.
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
    if any_of([not _is_there(path, wanted)])[0]:
        # Shards of other sizes are none of this store's.
        sizes = hashlib.sha256(json.dumps([wanted, SHARD_CELLS]).encode()).hexdigest()
        folder = root / f".{path.name}-{sizes[:12]}"
        shards = _Shards(folder, (len(names), *grid), np.dtype(wanted["dtype"]), encode)
        with write_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            shards.fill(progress)
            if is_main() and not _is_there(path, wanted):  # another run may have been quicker
                _commit(path, shards, wanted, labels)
    if is_main():  # of this store, of an earlier one of the split, of a run that was killed here
        for parts in root.glob(f".{key.split}-*"):
            shutil.rmtree(parts, ignore_errors=True)
    barrier()
    return reopen(path)


def _is_there(path: Path, wanted: dict[str, Any]) -> bool:
    meta = sound_meta(path)
    return meta is not None and all(meta[name] == value for name, value in wanted.items())


def _commit(path: Path, shards: "_Shards", wanted: dict[str, Any], labels: np.ndarray) -> None:
    """Make the store of its shards, wait until it is on the disk, and put it in its place."""
    whole = shards.folder / "store"
    shutil.rmtree(whole, ignore_errors=True)  # of a run that was killed here
    whole.mkdir(parents=True)
    shards.join(whole / "tokens.npy")
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


@dataclass(frozen=True)
class _Shards:
    """The tokens of consecutive volumes, a file each, which a later process can go on with.

    A shard appears by one rename and its name holds the SHA-256 of its bytes: one that exists is
    finished, and a damaged one is recognised. Where shards begin depends on the sizes of the whole
    alone, so that any number of processes, now or after a restart, makes the same ones.
    """

    folder: Path
    shape: tuple[int, ...]
    """(N, gd, gh, gw)."""
    dtype: np.dtype
    encode: Encode

    @property
    def starts(self) -> range:
        """First volume of each shard."""
        return range(0, self.shape[0], max(1, SHARD_CELLS // max(1, math.prod(self.shape[1:]))))

    def count(self, starts: Sequence[int]) -> int:
        """Return how many volumes are in the shards that begin at ``starts``."""
        return sum(min(self.starts.step, self.shape[0] - start) for start in starts)

    def fill(self, progress: Callable[[int, int], None]) -> None:
        """Make this process's share of the missing shards, and wait for the other processes."""
        there = self._there()
        # Judged together, before one of them writes: a shared disk may show one less than another.
        lacking = any_of([start not in there for start in self.starts])
        missing = [start for start, each in zip(self.starts, lacking, strict=True) if each]
        if there:
            kept = self.shape[0] - self.count(missing)
            say(f"{kept} of {self.shape[0]} volumes were encoded by an earlier run; going on")
        own = share_of(missing)
        progress(0, self.count(own))
        for number, start in enumerate(own, 1):
            self._make(start)
            progress(self.count(own[:number]), self.count(own))
        barrier()

    def join(self, path: Path) -> None:
        """Write all shards, one after the other, as one ``.npy`` file; make damaged ones again."""
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
                    content = self._make(start)
                file.write(content)

    def _there(self) -> dict[int, Path]:
        """Return the shards' files by first volume."""
        found = (_SHARD.fullmatch(path.name) for path in sorted(self.folder.glob("*.tokens")))
        return {int(name[1]): self.folder / name[0] for name in found if name is not None}

    def _make(self, start: int) -> bytes:
        """Encode a shard, write it and return its bytes."""
        parts = [part.cpu().numpy() for part in self.encode(start, start + self.count([start]))]
        shard = np.concatenate(parts).astype(self.dtype)
        if shard.shape != (self.count([start]), *self.shape[1:]):
            raise ValueError(f"tokens {shard.shape} do not fit into a store of {self.shape}")
        content = shard.tobytes()
        digest = hashlib.sha256(content).hexdigest()
        with atomic_write(self.folder / f"{start:012d}-{digest}.tokens") as temporary:
            temporary.write_bytes(content)
        return content
