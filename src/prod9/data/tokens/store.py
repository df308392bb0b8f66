"""The training set as tokens: encoded once, then read through a memory map.

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
from torch import Tensor

from prod9.data.volume_files.npz import read_npy
from prod9.files import hexdigest

_KEPT = 1 << 26
"""Bytes of a store that may stay mapped once they were read."""


@dataclass(frozen=True)
class TokenStoreKey:
    """What decides the tokens. Two stores with equal keys are the same."""

    tokenizer_digest: str
    data_digest: str
    """Changes with the volumes and their preprocessing."""
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

        Pages of a large store are released afterwards: they would count as this process's memory.
        """
        part = self.tokens[where].astype(np.int64)
        mapped = getattr(self.tokens, "_mmap", None)
        if self.tokens.nbytes > _KEPT and mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the path to a worker: NumPy would send every token."""
        return reopen, (self.path,)


class TokenBatch(NamedTuple):
    """Tokens, ready for a transformer."""

    tokens: Tensor
    """int64 (B, gd, gh, gw)."""
    labels: Tensor
    """int64 (B,), see :meth:`prod9.data.dataset.Dataset.label_of`."""
    names: list[str]
    sources: Tensor | None = None
    """int64 (B, C, gd, gh, gw): all channels of the same crop, the mask id for the target's own;
    with a coarse grid one more, what the coarse volume shows of the target."""
    origin: Tensor | None = None
    """float32 (B, 3): the first cell of a crop in the whole grid."""
    covariates: Tensor | None = None
    """float32 (B, V): see :class:`prod9.networks.condition.Condition`."""
    coarse: bool = False
    """Whether these are whole volumes on the coarse grid (:mod:`prod9.coarse`)."""


def sound_meta(path: Path) -> dict[str, Any] | None:
    """Return ``meta.json`` if it and the files it names are whole."""
    try:
        meta: dict[str, Any] = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        store = reopen(path)  # before the digests, which take long: it fails if files are cut
        whole = (
            [*store.tokens.shape] == meta["shape"]
            and len(store.names) == len(store.labels) == len(store.tokens)
            and store.tokens.dtype == meta["dtype"]
            and all(hexdigest(path / file, "sha256") == own for file, own in meta["sha256"].items())
            and set(meta["sha256"]) == {"tokens.npy", "labels.npy"}
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
