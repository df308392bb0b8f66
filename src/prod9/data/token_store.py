"""The training set as tokens: encoded once, memory-mapped afterwards, never stale.

A store is a folder: ``tokens.npy`` (N, gd, gh, gw) in the smallest unsigned type, ``labels.npy``
(N,), and ``meta.json``, which says what they were made of.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prod9 import __version__
from prod9.data.batches import BatchKey, make_loader
from prod9.data.volumes import VolumeSet
from prod9.errors import UserError
from prod9.files import hexdigest


@dataclass(frozen=True)
class TokenStoreKey:
    """What decides the tokens. Two stores with equal keys are the same."""

    tokenizer_digest: str
    data_digest: str
    """:func:`fingerprint`, or anything else that changes with the volumes and preprocessing."""
    split: str
    augmentation: str = "none"

    @property
    def folder_name(self) -> str:
        """Return the name of the store's folder."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.split}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


@dataclass(frozen=True)
class TokenStore:
    """An open store."""

    tokens: np.ndarray
    """Memory-mapped, unsigned, (N, gd, gh, gw)."""
    labels: np.ndarray
    """int64 (N,)."""
    names: Sequence[str]
    class_names: tuple[str, ...]
    key: TokenStoreKey
    codebook_size: int
    path: Path

    def __len__(self) -> int:
        return len(self.labels)


class TokenBatch(NamedTuple):
    """Tokens, ready for a transformer."""

    tokens: Tensor
    """int64 (B, gd, gh, gw)."""
    labels: Tensor
    """int64 (B,)."""
    names: list[str]
    sources: Tensor | None = None
    """int64 (B, M, gd, gh, gw): the modalities of the same crop, the mask id for its own."""
    origin: Tensor | None = None
    """float32 (B, 3): the first cell of a crop in the whole grid."""


def fingerprint(volumes: VolumeSet) -> str:
    """Return the sha256 of a set's images and labels (types, shapes and bytes)."""
    digest = hashlib.sha256()
    for array in (volumes.images, volumes.labels):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def open_or_build(
    root: Path,
    key: TokenStoreKey,
    *,
    names: Sequence[str],
    class_names: tuple[str, ...],
    grid: tuple[int, int, int],
    codebook_size: int,
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    progress: Callable[[int], None] | None = None,
) -> TokenStore:
    """Open the store of ``key`` under ``root``; build it if it is missing, damaged or different.

    Args:
        root: Folder of stores.
        key: What decides the tokens.
        names: One per volume, in the order of ``batches``.
        class_names: In label order.
        grid: Tokens per axis (gd, gh, gw).
        codebook_size: Tokens lie in 0..codebook_size - 1.
        batches: Called to build: tokens (B, gd, gh, gw) and labels (B,), in order.
        progress: Told how many volumes are stored so far.

    Raises:
        UserError: the folder cannot be written.
        ValueError: ``batches`` gives other numbers, grids or codes than announced; nothing is
            left behind.

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
    meta = _sound_meta(path)
    if meta is not None and all(meta[name] == value for name, value in wanted.items()):
        return _open(path, meta)
    try:
        root.mkdir(parents=True, exist_ok=True)
        # A folder of its own, renamed when complete: a killed run leaves nothing that is read.
        temporary = root / f".{path.name}-{os.getpid()}"
        for stale in root.glob(f".{path.name}-*"):  # of a run that was killed
            shutil.rmtree(stale, ignore_errors=True)
        temporary.mkdir()
        try:
            _fill(temporary, wanted, batches(), progress)
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
            _sync(root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot write the token store {path}: {error.strerror or error}; free some space or "
            "choose another folder."
        ) from error
    return open_store(path)


def open_store(path: Path, tokenizer_digest: str | None = None) -> TokenStore:
    """Open a store by its folder.

    Raises:
        UserError: there is no whole store, or it was made by another tokenizer than
            ``tokenizer_digest``.

    """
    meta = _sound_meta(path)
    if meta is None:
        raise UserError(f"{path} is no complete token store; delete the folder to build it again.")
    made_by = meta["key"]["tokenizer_digest"]
    if tokenizer_digest is not None and made_by != tokenizer_digest:
        raise UserError(
            f"the token store {path} was made by tokenizer {made_by}, not {tokenizer_digest}; "
            "delete the folder or point autoencoder_path to the tokenizer that made it."
        )
    return _open(path, meta)


def token_loader(
    store: TokenStore, batch_size: int, *, train: bool, seed: int, num_workers: int = 0
) -> DataLoader[TokenBatch]:
    """Return batches of tokens; shuffled by (seed, epoch) in training, else in order."""
    return make_loader(
        TokenDataset(store), batch_size, train=train, seed=seed, num_workers=num_workers
    )


class TokenDataset(Dataset[TokenBatch]):
    """Whole batches of a :class:`TokenStore`."""

    def __init__(self, store: TokenStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, key: BatchKey) -> TokenBatch:
        """Return the batch of the volumes ``key.indices``."""
        store, indices = self.store, key.indices
        return TokenBatch(
            tokens=torch.from_numpy(store.tokens[indices].astype(np.int64)),
            labels=torch.from_numpy(store.labels[indices]),
            names=[store.names[i] for i in indices],
        )


def _sound_meta(path: Path) -> dict[str, Any] | None:
    """Return ``meta.json`` if it and the files it speaks of are whole."""
    try:
        meta: dict[str, Any] = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        TokenStoreKey(**meta["key"])
        needed = {"codebook_size", "dtype", "shape", "names", "class_names"}
        whole = all(
            hexdigest(path / file, "sha256") == digest for file, digest in meta["sha256"].items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return meta if whole and needed <= meta.keys() else None


def _open(path: Path, meta: dict[str, Any]) -> TokenStore:
    return TokenStore(
        tokens=np.load(path / "tokens.npy", mmap_mode="r", allow_pickle=False),
        labels=np.load(path / "labels.npy", allow_pickle=False),
        names=meta["names"],
        class_names=tuple(meta["class_names"]),
        key=TokenStoreKey(**meta["key"]),
        codebook_size=meta["codebook_size"],
        path=path,
    )


def _fill(
    folder: Path,
    wanted: dict[str, Any],
    batches: Iterable[tuple[Tensor, Tensor]],
    progress: Callable[[int], None] | None,
) -> None:
    """Write a whole store into ``folder`` and wait until it is on the disk."""
    count, *grid = wanted["shape"]
    tokens = np.lib.format.open_memmap(
        folder / "tokens.npy", mode="w+", dtype=np.dtype(wanted["dtype"]), shape=(count, *grid)
    )
    labels = np.empty(count, np.int64)
    done = 0
    for part, part_labels in batches:
        codes = part.cpu().numpy()
        stop = done + len(codes)
        if stop > count or list(codes.shape[1:]) != grid or len(part_labels) != len(codes):
            raise ValueError(
                f"tokens {codes.shape} with {len(part_labels)} labels do not fit into volumes "
                f"{done}.. of a store of {count} x {grid}"
            )
        if codes.size and (codes.min() < 0 or codes.max() >= wanted["codebook_size"]):
            raise ValueError(
                f"tokens {codes.min()}..{codes.max()} exceed the codebook of "
                f"{wanted['codebook_size']}"
            )
        tokens[done:stop] = codes
        labels[done:stop] = part_labels.cpu().numpy()
        done = stop
        if progress is not None:
            progress(done)
    if done != count:
        raise ValueError(f"{done} volumes were encoded, {count} were announced")
    tokens.flush()
    np.save(folder / "labels.npy", labels, allow_pickle=False)
    files = ("tokens.npy", "labels.npy")
    meta = {
        **wanted,
        "sha256": {file: hexdigest(folder / file, "sha256") for file in files},
        "prod9_version": __version__,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    for path in (*(folder / file for file in files), folder / "meta.json", folder):
        _sync(path)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
