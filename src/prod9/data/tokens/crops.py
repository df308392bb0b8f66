"""Training samples of Stage 2: the tokens of a target channel, and the others as its sources.

Volumes are encoded whole, as they are when the model is used, and cropped as tokens. The rows of a
store are the channels of the first item, then of the second, and so on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from prod9.config.data import CroppedSourceConfig, SourceConfig
from prod9.data.batches import BatchKey
from prod9.data.crops import crop_start
from prod9.data.dataset import Dataset
from prod9.data.tokens.store import TokenBatch, TokenStore


@dataclass(frozen=True)
class CoarseTokens:
    """The same rows on the coarse grid."""

    whole: TokenStore
    """Coarse volumes."""
    shown: TokenStore
    """What these show, as tokens of the fine grid."""
    share: float
    """Of training batches that are whole coarse volumes, without a source: as many as have the
    tokens of a batch of windows."""


class TokenCrops(TorchDataset[TokenBatch]):
    """Index i is repetition r of target channel c of item s; see :attr:`Dataset.targets`.

    In training its place comes from (seed, epoch, i); otherwise it stays the same.

    Args:
        store: a row for each channel of each item of ``data``, in order.
        data: boxes, classes and covariates are read, no voxels.
        config: repetitions per epoch, and how often the foreground is in the middle; grids are
            taken whole unless it is a :class:`CroppedSourceConfig`.
        stride: voxels per cell.
        window: cells per side of a crop, less where the grid is smaller.
        train: whether places are drawn anew in each epoch.
        seed: of the places.
        coarse: the volumes on the coarse grid, if the model has one.
    """

    def __init__(
        self,
        store: TokenStore,
        data: Dataset,
        config: SourceConfig,
        *,
        stride: int,
        window: Sequence[int],
        train: bool,
        seed: int,
        coarse: CoarseTokens | None = None,
    ) -> None:
        self.store, self.data, self.train, self.seed = store, data, train, seed
        self.coarse = coarse
        self.channels = len(data.channels)
        self.targets = [s * self.channels + c for s in range(len(data)) for c in data.targets]
        self.grid = store.tokens.shape[1:]
        self.stride, self.window, self.repetitions = stride, self.grid, 1
        self.crops = config if isinstance(config, CroppedSourceConfig) else None
        if self.crops is not None:
            self.window = tuple(min(w, side) for w, side in zip(window, self.grid, strict=True))
            self.repetitions = self.crops.crops_per_volume if train else 1
        # Padding to the stride is shared by both faces.
        self.margin = [(g * stride - s) // 2 for g, s in zip(self.grid, data.shape, strict=True)]

    def __len__(self) -> int:
        return len(self.targets) * self.repetitions

    def box(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where the foreground of an item begins and ends, in cells, (3,) each."""
        low, high = self.data.box(item)
        return (low + self.margin) / self.stride, (high + self.margin) / self.stride

    def __getitem__(self, key: BatchKey) -> TokenBatch:
        """Return the batch of the crops ``key.indices``."""
        if self.coarse is not None and self.train and self._chance(key) < self.coarse.share:
            return self._whole(self.coarse.whole, key)
        count, size = self.channels, len(key.indices)
        tokens = np.empty((size, count, *self.window), np.int64)
        shown = np.empty((size, 1, *self.window), np.int64)
        starts = np.zeros((size, 3), np.float32)
        rows = [self.targets[index // self.repetitions] for index in key.indices]
        items, targets = np.divmod(np.array(rows), count)
        for position, (index, item) in enumerate(zip(key.indices, items.tolist(), strict=True)):
            start = [0, 0, 0]
            if self.crops is not None:
                random = np.random.default_rng([self.seed, key.epoch if self.train else 0, index])
                start = crop_start(
                    random, self.grid, self.window, self.box(item), self.crops.foreground_crops
                )
            cells = tuple(slice(s, s + w) for s, w in zip(start, self.window, strict=True))
            own = slice(item * count, (item + 1) * count)
            tokens[position], starts[position] = self.store.take((own, *cells)), start
            if self.coarse is not None:
                shown[position, 0] = self.coarse.shown.take((rows[position], *cells))
        wanted = tokens[np.arange(size), targets]
        tokens[np.arange(size), targets] = self.store.codebook_size  # the answer is no source
        sources = [tokens] if count > 1 else []
        if self.coarse is not None:
            sources.append(shown)
        return TokenBatch(
            tokens=torch.from_numpy(wanted),
            labels=torch.from_numpy(self.store.labels[rows]),
            names=[self.store.names[row] for row in rows],
            sources=torch.from_numpy(np.concatenate(sources, 1)) if sources else None,
            origin=torch.from_numpy(starts) if self.crops is not None else None,
            covariates=covariate_rows(self.data, items) if self.data.covariates else None,
        )

    def _chance(self, key: BatchKey) -> float:
        """Return a number in [0, 1) for a whole batch: a batch has one grid."""
        return np.random.default_rng([self.seed, key.epoch, *key.indices]).random()

    def _whole(self, store: TokenStore, key: BatchKey) -> TokenBatch:
        """Return the first volumes of ``key.indices``, whole, on the coarse grid."""
        cells = math.prod(store.tokens.shape[1:])
        count = math.ceil(len(key.indices) * math.prod(self.window) / cells)
        rows = [index // self.repetitions for index in key.indices[:count]]
        items = np.array(rows) // self.channels
        return TokenBatch(
            tokens=torch.from_numpy(np.stack([store.take(row) for row in rows])),
            labels=torch.from_numpy(store.labels[rows]),
            names=[store.names[row] for row in rows],
            covariates=covariate_rows(self.data, items) if self.data.covariates else None,
            coarse=True,
        )


def covariate_rows(data: Dataset, items: Sequence[int] | np.ndarray) -> torch.Tensor:
    """Return the covariates of some items, float32 (B, V); NaN where one is not given."""
    rows = [data.covariates_of(int(item)) for item in items]
    numbers = [[np.nan if value is None else value for value in row] for row in rows]
    return torch.tensor(numbers, dtype=torch.float32)
