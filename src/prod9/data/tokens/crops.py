"""Crops of whole scans in token space: a target modality, and the others as its sources.

Scans are encoded whole, as they are when the model is used, and cropped as tokens; the rows of a
store are the modalities of the first scan, then of the second, and so on.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from prod9.config import BraTSSourceConfig
from prod9.data.batches import BatchKey, make_loader
from prod9.data.brats.scans import ScanSet
from prod9.data.crops import crop_start
from prod9.data.tokens.store import TokenBatch, TokenStore


class TokenCrops(Dataset[TokenBatch]):
    """Item i is repetition r of target modality m of scan s.

    In training its place comes from (seed, epoch, i); otherwise it stays the same.

    Args:
        store: M rows for each scan of ``scans``, in order.
        scans: the scans; only their boxes are read.
        stride: voxels per cell.
        window: cells per side of a crop (less where the grid is smaller).
        config: repetitions per epoch, how often the brain is in the middle, and the batches.
        train: whether places are drawn anew in each epoch, and the order too.
        seed: of the places and the order.
    """

    def __init__(
        self,
        store: TokenStore,
        scans: ScanSet,
        *,
        stride: int,
        window: Sequence[int],
        config: BraTSSourceConfig,
        train: bool,
        seed: int,
    ) -> None:
        self.store, self.config, self.train, self.seed = store, config, train, seed
        self.modalities = len(store.class_names)
        self.repetitions = config.crops_per_volume if train else 1
        self.grid = store.tokens.shape[1:]
        self.window = tuple(min(w, side) for w, side in zip(window, self.grid, strict=True))
        # Padding to the stride is shared by both faces.
        margin = [(g * stride - s) // 2 for g, s in zip(self.grid, scans.shape, strict=True)]
        boxes = [scans.box(index) for index in range(len(scans))]
        self.boxes = [((low + margin) / stride, (high + margin) / stride) for low, high in boxes]

    def __len__(self) -> int:
        return len(self.store) * self.repetitions

    def __getitem__(self, key: BatchKey) -> TokenBatch:
        """Return the batch of the crops ``key.indices``."""
        shape = (len(key.indices), self.modalities, *self.window)
        tokens = np.empty(shape, np.int64)
        starts = np.empty((len(key.indices), 3), np.float32)
        targets = np.empty(len(key.indices), np.int64)
        names: list[str] = []
        foreground = self.config.foreground_crops
        for position, item in enumerate(key.indices):
            row = item // self.repetitions
            scan, target = divmod(row, self.modalities)
            random = np.random.default_rng([self.seed, key.epoch if self.train else 0, item])
            start = crop_start(random, self.grid, self.window, self.boxes[scan], foreground)
            first = scan * self.modalities
            cells = tuple(slice(s, s + w) for s, w in zip(start, self.window, strict=True))
            tokens[position] = self.store.take((slice(first, first + self.modalities), *cells))
            starts[position], targets[position] = start, target
            names.append(self.store.names[row])
        rows = np.arange(len(targets))
        wanted = tokens[rows, targets].copy()
        tokens[rows, targets] = self.store.codebook_size  # the answer is no source
        return TokenBatch(
            tokens=torch.from_numpy(wanted),
            labels=torch.from_numpy(targets),
            names=names,
            sources=torch.from_numpy(tokens),
            origin=torch.from_numpy(starts),
        )


def token_crop_loader(crops: TokenCrops) -> DataLoader[TokenBatch]:
    """Return batches of the crops; shuffled and cropped by (seed, epoch) in training."""
    return make_loader(
        crops,
        crops.config.batch_size,
        train=crops.train,
        seed=crops.seed,
        num_workers=crops.config.num_workers,
    )
