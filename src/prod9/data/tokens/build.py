"""Building a token store: in shards, by any number of processes, in any number of attempts."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
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
        progress: called with the shards that this process has encoded, and with its share.
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
    step = max(1, SHARD_CELLS // math.prod(grid))
    # Everything that decides the shards is part of their folder's name.
    sizes = hashlib.sha256(json.dumps([wanted, SHARD_CELLS]).encode()).hexdigest()
    folder = root / f".{path.name}-{sizes[:12]}"

    def make(start: int) -> bytes:
        """Encode the shard that begins at a volume, write it, and return its bytes."""
        stop = min(start + step, len(names))
        tokens = np.concatenate([part.cpu().numpy() for part in encode(start, stop)])
        if tokens.shape != (stop - start, *grid):
            raise ValueError(f"tokens {tokens.shape} do not fit into a store of {wanted['shape']}")
        content = tokens.astype(wanted["dtype"]).tobytes()
        with atomic_write(_shard(folder, start)) as temporary:
            temporary.write_bytes(content)
        return content

    if any_of([not _is_there(path, wanted)])[0]:
        with write_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            _fill(folder, range(0, len(names), step), make, progress)
            if is_main() and not _is_there(path, wanted):  # another run may have been quicker
                _commit(path, folder, step, make, wanted, labels)
    if is_main():  # of this store alone: another run may be making one of other settings
        for parts in root.glob(f".{path.name}-*"):
            shutil.rmtree(parts, ignore_errors=True)
    barrier()
    return reopen(path)


def _is_there(path: Path, wanted: dict[str, Any]) -> bool:
    meta = sound_meta(path)
    return meta is not None and all(meta[name] == value for name, value in wanted.items())


def _shard(folder: Path, start: int) -> Path:
    """Return the file of the shard that begins at a volume: its tokens' bytes.

    It appears by one rename: one that exists is finished. Where shards begin depends on the sizes
    alone, so that any number of processes, now or after a restart, makes the same ones.
    """
    return folder / f"{start:012d}.tokens"


def _fill(
    folder: Path, starts: range, make: Callable[[int], bytes], progress: Callable[[int, int], None]
) -> None:
    """Make this process's share of the missing shards, and wait for the other processes."""
    # Judged together, before one of them writes: a shared disk may show one less than another.
    lacking = any_of([not _shard(folder, start).exists() for start in starts])
    missing = [start for start, each in zip(starts, lacking, strict=True) if each]
    if len(missing) < len(starts):
        say(f"{len(starts) - len(missing)} of {len(starts)} shards of tokens exist; going on")
    own = share_of(missing)
    for done, start in enumerate(own):
        progress(done, len(own))
        make(start)
    progress(len(own), len(own))
    barrier()


def _commit(
    path: Path,
    folder: Path,
    step: int,
    make: Callable[[int], bytes],
    wanted: dict[str, Any],
    labels: np.ndarray,
) -> None:
    """Make the store of its shards, wait until it is on the disk, and put it in its place."""
    whole = folder / "store"
    shutil.rmtree(whole, ignore_errors=True)  # of a run that was killed here
    whole.mkdir(parents=True)
    count, *grid = wanted["shape"]
    dtype = np.dtype(wanted["dtype"])
    with (whole / "tokens.npy").open("wb") as file:
        header = {"descr": dtype.str, "fortran_order": False, "shape": (count, *grid)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, count, step):
            shard = _shard(folder, start)
            content = shard.read_bytes() if shard.exists() else b""
            if len(content) != min(step, count - start) * math.prod(grid) * dtype.itemsize:
                say(f"{shard} is torn; encoding it again")
                content = make(start)
            file.write(content)
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
