"""Training volumes of Stage 1 as batches: whole volumes, or crops of them; augmentation."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from prod9.coarse import coarse_sides, coarsened
from prod9.config.data import (
    AugmentationConfig,
    CroppedSourceConfig,
    SourceConfig,
    SpatialAugmentationConfig,
    coarse_of,
)
from prod9.data.batches import BatchKey, batches_of
from prod9.data.dataset import Dataset
from prod9.data.spatial import Warp, changes_shape

BatchT = TypeVar("BatchT")
_UNCHANGED = AugmentationConfig()


class Batch(NamedTuple):
    """Volumes, ready for a network."""

    volumes: Tensor
    """float32 (B, 1, D, H, W) in [0, 1]."""
    labels: Tensor
    """int64 (B,), see :meth:`prod9.data.dataset.Dataset.label_of`."""
    names: list[str]


def crop_start(
    random: np.random.Generator,
    sides: Sequence[int],
    roi: Sequence[int],
    box: tuple[np.ndarray, np.ndarray],
    foreground: float,
) -> list[int]:
    """Draw where a crop begins: centred in ``box`` with chance ``foreground``, else anywhere."""
    inside, place = random.random() < foreground, random.random(3)
    room = np.maximum(np.array(sides) - np.array(roi), 0)
    low, high = box
    centred = np.floor(low + place * (high - low)) - np.array(roi) // 2
    anywhere = np.floor(place * (room + 1))
    return np.clip(centred if inside else anywhere, 0, room).astype(int).tolist()


class VolumeCrops(TorchDataset[Batch]):
    """Batches of single channels of a data set.

    Item i is repetition r of channel c of data set item s. In training its place and mirror image
    come from (seed, epoch, s, r), so that all channels of s are cut and mirrored alike; changes of
    intensity come from (seed, epoch, s, r, c), and with one channel from the former. Otherwise
    crops stay the same in every epoch and are never changed.

    Args:
        data: the volumes.
        config: crops per volume and augmentation, and the share of crops of coarse volumes;
            volumes are taken whole unless it is a :class:`CroppedSourceConfig`.
        roi: voxels per side of a crop, less where the volumes are smaller.
        train: whether places and changes are drawn anew in each epoch.
        seed: of both.
        channels: which of the data's; all of them when left out.
    """

    def __init__(
        self,
        data: Dataset,
        config: SourceConfig,
        roi: Sequence[int],
        *,
        train: bool,
        seed: int,
        channels: Sequence[int] = (),
    ) -> None:
        self.data, self.train, self.seed = data, train, seed
        self.channels = [*(channels or range(len(data.channels)))]
        self.cropped = isinstance(config, CroppedSourceConfig)
        self.coarse = coarse_of(config)
        self.roi, self.repetitions, self.foreground = data.shape, 1, 1.0
        if isinstance(config, CroppedSourceConfig):
            d, h, w = (min(r, side) for r, side in zip(roi, data.shape, strict=True))
            self.roi = d, h, w
            if train:  # else 1.0: an empty crop has no PSNR to speak of
                self.repetitions = config.crops_per_volume
                self.foreground = config.foreground_crops
        change: AugmentationConfig = getattr(config, "augmentation", _UNCHANGED)
        self.augmentation = change if train else _UNCHANGED

    def __len__(self) -> int:
        return len(self.data) * len(self.channels) * self.repetitions

    def __getitem__(self, key: BatchKey) -> Batch:
        data, count = self.data, len(self.channels)
        crops = np.empty((len(key.indices), 1, *self.roi), np.float32)
        labels = np.empty(len(key.indices), np.int64)
        names: list[str] = []
        for position, index in enumerate(key.indices):
            rest, position_of_channel = divmod(index, count)
            channel = self.channels[position_of_channel]
            item, repetition = divmod(rest, self.repetitions)
            place = [self.seed, key.epoch if self.train else 0, item, repetition]
            shared = np.random.default_rng(place)
            start = [0, 0, 0]
            coarse = self._is_coarse(place)
            if self.cropped and not coarse:
                start = crop_start(shared, data.shape, self.roi, data.box(item), self.foreground)
            if coarse:
                crop = self._coarse_crop(shared, item, channel)
            elif changes_shape(self.augmentation):
                # A stream of its own: places and mirror images are the same with and without.
                drawn = np.random.default_rng(np.random.SeedSequence(place, spawn_key=(1,)))
                warp = Warp.draw(drawn, cast(SpatialAugmentationConfig, self.augmentation))
                crop = warp.crop(data, item, channel, start, self.roi)
            else:
                crop = data.crop(item, channel, start, self.roi)
            if self.augmentation != _UNCHANGED:
                own = shared if count == 1 else np.random.default_rng([*place, channel])
                change = self.augmentation
                if data.channels[channel].kind == "labels":
                    change = AugmentationConfig(flip=change.flip)
                crop = augment(crop, change, data.flip_axes(item), shared, own)
            crops[position, 0], labels[position] = crop, data.label_of(item, channel)
            names.append(data.name_of(item, channel))
        return Batch(torch.from_numpy(crops), torch.from_numpy(labels), names)

    def _is_coarse(self, place: Sequence[int]) -> bool:
        if not (self.train and self.coarse.factor):
            return False
        # A stream of its own: all else is the same with and without.
        drawn = np.random.default_rng(np.random.SeedSequence(place, spawn_key=(2,)))
        return drawn.random() < self.coarse.share

    def _coarse_crop(self, random: np.random.Generator, item: int, channel: int) -> np.ndarray:
        """Return a crop of a coarse volume; what is smaller than a crop goes on as at its faces."""
        factor, shape = self.coarse.factor, self.data.shape
        low, high = self.data.box(item)
        box = low / factor, high / factor
        start = crop_start(random, coarse_sides(shape, factor), self.roi, box, self.foreground)
        first = factor * np.array(start)
        sides = np.minimum(first + factor * np.array(self.roi), shape) - first
        fine = torch.from_numpy(self.data.crop(item, channel, first.tolist(), sides.tolist()))
        crop = coarsened(fine[None, None], factor)[0, 0].numpy()
        missing = [(0, r - s) for r, s in zip(self.roi, crop.shape, strict=True)]
        return np.pad(crop, missing, mode="edge")


def augment(
    volume: np.ndarray,
    change: AugmentationConfig,
    flip_axes: tuple[int, ...],
    geometry: np.random.Generator,
    intensity: np.random.Generator,
) -> np.ndarray:
    """Return a volume (D, H, W) in [0, 1] mirrored and with other intensities, at random.

    ``geometry`` is the source of what all channels of an item share, ``intensity`` that of
    everything else; they may be the same object.
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


def volume_loader(
    data: Dataset,
    config: SourceConfig,
    roi: Sequence[int],
    *,
    train: bool,
    seed: int,
    channels: Sequence[int] = (),
) -> DataLoader[Batch]:
    """Return the batches of :class:`VolumeCrops`, whose arguments these are."""
    crops = VolumeCrops(data, config, roi, train=train, seed=seed, channels=channels)
    return batches_of(crops, config, train=train, seed=seed)


def examples(loader: DataLoader[BatchT], count: int) -> BatchT:
    """Return ``count`` samples, always the same, spread over the data of a loader."""
    source: Any = loader.dataset
    chosen = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)
    return source[BatchKey(0, chosen.tolist())]
