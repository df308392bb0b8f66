"""Building a token store: in shards, by any number of processes, in any number of attempts."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prod9 import __version__
from prod9.data.tokens.shards import Encode, Shards, volumes_per_shard
from prod9.data.tokens.store import TokenStore, TokenStoreKey, reopen, sound_meta
from prod9.errors import Prod9Error
from prod9.files import hexdigest, sync
from prod9.runtime.distributed import barrier, is_main, main_first, rank, total, world_size

_ABANDONED_SECONDS = 7 * 24 * 3600
"""Shards to which none was added for so long, while another store took their place, are litter."""


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
    same to the bit. All processes of a distributed run must come here.

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
    with main_first():  # the others find it checked
        there = torch.tensor(float(_is_there(path, wanted)))
    if int(total(there)) == world_size():
        if is_main():
            _remove_shards(path)  # of a run that was killed just before it did
        return reopen(path)
    # Shards of other sizes are none of this store's.
    sizes = hashlib.sha256(json.dumps([wanted, volumes_per_shard(grid)]).encode()).hexdigest()
    parts = root / f".{path.name}-{sizes[:12]}"
    shards = Shards(parts, (len(names), *grid), np.dtype(wanted["dtype"]), codebook_size)
    try:
        parts.mkdir(parents=True, exist_ok=True)
        shards.fill(encode, progress, say)
        if is_main():
            _commit(path, shards, wanted, labels, encode, say)
    except OSError as error:
        raise Prod9Error(
            f"cannot write the token store {path}: {error.strerror or error}; free some space or "
            "choose another folder."
        ) from error
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
    shards: Shards,
    wanted: dict[str, Any],
    labels: np.ndarray,
    encode: Encode,
    say: Callable[[str], None],
) -> None:
    """Make the store of its shards, wait until it is on the disk, and put it in its place."""
    if not _is_there(path, wanted):  # another run may have been quicker
        whole = shards.folder / "store"
        shutil.rmtree(whole, ignore_errors=True)  # of a run that was killed here
        whole.mkdir(parents=True)
        digests = {"tokens.npy": shards.join(whole / "tokens.npy", encode, say)}
        np.save(whole / "labels.npy", labels.astype(np.int64), allow_pickle=False)
        digests["labels.npy"] = hexdigest(whole / "labels.npy", "sha256")
        meta = {**wanted, "sha256": digests, "prod9_version": __version__}
        (whole / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        for each in (*whole.iterdir(), whole):
            sync(each)
        if path.exists():
            shutil.rmtree(path)
        whole.rename(path)
        sync(path.parent)
    _remove_shards(path)


def _remove_shards(path: Path) -> None:
    """Remove the shards of a finished store, and those of its like with other settings.

    Also those of the same split by another tokenizer or of other data, once they are old: nobody
    may ever ask for them again.
    """
    split = path.name.split("-")[0]
    for parts in path.parent.glob(f".{split}-*"):
        with suppress(OSError):  # another process may be quicker
            old = time.time() - parts.stat().st_mtime > _ABANDONED_SECONDS
            if old or parts.name.startswith(f".{path.name}-"):
                shutil.rmtree(parts, ignore_errors=True)
