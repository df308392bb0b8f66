"""Volumes in memory, as batches in [0, 1]; augmentation that keeps the class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prod9.config.data import AugmentationConfig, MedMNISTDataConfig
from prod9.data.batches import BatchKey, make_loader
from prod9.errors import Prod9Error


@dataclass(frozen=True)
class ArrayVolumes:
    """Volumes in memory."""

    images: np.ndarray
    """uint8, or float in [0, 1]: (N, D, H, W)."""
    labels: np.ndarray
    """int64 (N,): indices into ``class_names``."""
    names: Sequence[str]
    """One per volume, such as ``organmnist3d/train/17``."""
    class_names: tuple[str, ...]
    flip_axes: tuple[tuple[int, ...], ...]
    """For each class, the spatial axes (0, 1, 2) along which it may be mirrored."""

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "ArrayVolumes":
        """Return the first ``count`` volumes."""
        return replace(
            self,
            images=self.images[:count],
            labels=self.labels[:count],
            names=self.names[:count],
        )


class Batch(NamedTuple):
    """Volumes, ready for a network."""

    volumes: Tensor
    """float32 (B, 1, D, H, W) in [0, 1]."""
    labels: Tensor
    """int64 (B,)."""
    names: list[str]


class VolumeDataset(Dataset[Batch]):
    """Whole batches of a :class:`ArrayVolumes`.

    What happens to volume i in epoch e is drawn from (seed, e, i): it depends neither on the
    workers nor on the order.
    """

    def __init__(
        self, volumes: ArrayVolumes, augmentation: AugmentationConfig | None = None, seed: int = 0
    ) -> None:
        self.volumes, self.seed = volumes, seed
        self.augmentation = augmentation or AugmentationConfig()

    def __len__(self) -> int:
        return len(self.volumes)

    def __getitem__(self, key: BatchKey) -> Batch:
        """Return the batch of the volumes ``key.indices``.

        Raises:
            Prod9Error: a volume has NaN or infinite voxels; the sentence names it.
        """
        indices, data = key.indices, self.volumes
        names = [data.names[i] for i in indices]
        images = data.images[indices]  # fancy indexing: a copy, free to be changed in place
        if images.dtype == np.uint8:
            scaled = np.divide(images, 255, dtype=np.float32)
        else:
            scaled = images.astype(np.float32)
            for name, volume in zip(names, scaled, strict=True):
                require_finite(volume, name)
        if self.augmentation != AugmentationConfig():
            for position, index in enumerate(indices):
                random = np.random.default_rng([self.seed, key.epoch, index])
                axes = data.flip_axes[int(data.labels[index])]
                scaled[position] = augment(
                    scaled[position], self.augmentation, axes, random, random
                )
        return Batch(
            volumes=torch.from_numpy(scaled)[:, None],
            labels=torch.from_numpy(data.labels[indices]),
            names=names,
        )


def augment(
    volume: np.ndarray,
    change: AugmentationConfig,
    flip_axes: tuple[int, ...],
    geometry: np.random.Generator,
    intensity: np.random.Generator,
) -> np.ndarray:
    """Mirror a volume (D, H, W) in [0, 1] and change its intensities at random.

    Args:
        volume: is not changed itself.
        change: what may happen.
        flip_axes: along which it may be mirrored.
        geometry: source of what all modalities of a scan must share.
        intensity: source of everything else; may be the same object.
    """
    # Always the same draws, so that switching one change off leaves the others as they were.
    mirrored = geometry.random(3) < 0.5
    scale, shift = intensity.uniform(-1.0, 1.0, 2)
    if change.flip:
        volume = np.flip(volume, tuple(axis for axis in flip_axes if mirrored[axis]))
    if change.intensity_scale or change.intensity_shift:
        factor = np.float32(1 + change.intensity_scale * scale)
        volume = (volume * factor + np.float32(change.intensity_shift * shift)).clip(0, 1)
    return volume


def require_finite(volume: np.ndarray, name: str) -> None:
    """Refuse a volume with NaN or infinite voxels.

    Raises:
        Prod9Error: with the case's name and the number of such voxels.
    """
    bad = volume.size - int(np.count_nonzero(np.isfinite(volume)))
    if bad:
        raise Prod9Error(
            f"{name} has {bad} of {volume.size} voxels that are NaN or infinite; repair the volume "
            "or leave it out."
        )


def loader(
    volumes: ArrayVolumes, config: MedMNISTDataConfig, *, train: bool, seed: int
) -> DataLoader[Batch]:
    """Return batches of ``volumes``.

    Training shuffles and augments by (seed, epoch) and drops the last short batch; otherwise the
    volumes come in order, all of them, unchanged. See :func:`prod9.data.batches.set_epoch`.
    """
    source = VolumeDataset(volumes, config.augmentation if train else None, seed)
    return make_loader(
        source, config.batch_size, train=train, seed=seed, num_workers=config.num_workers
    )
