"""The training set as tokens: encoded once, memory-mapped afterwards, never stale.

A store is a folder: ``tokens.npy`` (N, gd, gh, gw) in the smallest unsigned type, ``labels.npy``
(N,), and ``meta.json``, which says what they were made of and holds their digests.
"""

import hashlib
import json
import mmap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prod9.data.batches import BatchKey, make_loader
from prod9.data.volume_files.npz import read_npy
from prod9.data.volumes import ArrayVolumes
from prod9.errors import Prod9Error
from prod9.files import hexdigest

_KEPT = 1 << 26
"""Bytes of a store that may stay mapped once they were read."""


@dataclass(frozen=True)
class TokenStoreKey:
    """What decides the tokens. Two stores with equal keys are the same."""

    tokenizer_digest: str
    data_digest: str
    """:func:`fingerprint`, or anything else that changes with the volumes and preprocessing."""
    split: str

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

    def take(self, where: Any) -> np.ndarray:
        """Return a copy of part of the tokens, int64; ``where`` as for an array's ``[]``.

        What is read of a large store counts as this process's memory only for so long.
        """
        part = self.tokens[where].astype(np.int64)
        mapped = getattr(self.tokens, "_mmap", None)
        if self.tokens.nbytes > _KEPT and mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a worker as a path: NumPy would send every token."""
        return reopen, (self.path,)


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


def fingerprint(volumes: ArrayVolumes) -> str:
    """Return the sha256 of a set's images and labels (types, shapes and bytes)."""
    digest = hashlib.sha256()
    for array in (volumes.images, volumes.labels):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def open_store(path: Path, tokenizer_digest: str | None = None) -> TokenStore:
    """Open a store by its folder.

    Raises:
        Prod9Error: there is no whole store, or it was made by another tokenizer than
            ``tokenizer_digest``.
    """
    meta = sound_meta(path)
    if meta is None:
        raise Prod9Error(f"{path} is no complete token store; delete the folder to build it again.")
    made_by = meta["key"]["tokenizer_digest"]
    if tokenizer_digest is not None and made_by != tokenizer_digest:
        raise Prod9Error(
            f"the token store {path} was made by tokenizer {made_by}, not {tokenizer_digest}; "
            "delete the folder or point autoencoder_path to the tokenizer that made it."
        )
    return reopen(path)


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
            tokens=torch.from_numpy(store.take(indices)),
            labels=torch.from_numpy(store.labels[indices]),
            names=[store.names[i] for i in indices],
        )


def sound_meta(path: Path) -> dict[str, Any] | None:
    """Return ``meta.json`` if it and the files it names are whole."""
    try:
        meta: dict[str, Any] = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        store = reopen(path)  # before the digests, which take long: it fails where files are cut
        whole = (
            [*store.tokens.shape] == meta["shape"]
            and len(store.names) == len(store.labels) == len(store.tokens)
            and store.tokens.dtype == meta["dtype"]
            and all(
                hexdigest(path / file, "sha256") == meta["sha256"][file]
                for file in ("tokens.npy", "labels.npy")
            )
        )
    except Exception:  # a damaged or forged file may raise anything
        return None
    return meta if whole else None


def reopen(path: Path) -> TokenStore:
    """Open a store that is known to be whole."""
    meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    return TokenStore(
        tokens=np.load(path / "tokens.npy", mmap_mode="r", allow_pickle=False),
        labels=read_npy(path / "labels.npy"),
        names=meta["names"],
        class_names=tuple(meta["class_names"]),
        key=TokenStoreKey(**meta["key"]),
        codebook_size=meta["codebook_size"],
        path=path,
    )
