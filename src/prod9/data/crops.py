"""Training crops of scans: the same place of all modalities."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from prod9.config import BraTSDataConfig
from prod9.data.batches import BatchKey, make_loader
from prod9.data.brats.cases import MODALITIES
from prod9.data.brats.scans import ScanSet
from prod9.data.volumes import Batch, augment

_FLIP_AXES = (0,)
"""A brain's mirror image is as likely a brain; upside-down or back-to-front ones are not."""


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


class ScanCrops(Dataset[Batch]):
    """Crops of every modality of every scan.

    Item i is repetition r of modality m of scan s. In training its place and mirror image come
    from (seed, epoch, s, r): all modalities of a scan are cut at the same place. Otherwise they
    stay the same in every epoch and are never mirrored.
    """

    def __init__(
        self,
        scans: ScanSet,
        roi: Sequence[int],
        config: BraTSDataConfig,
        *,
        train: bool,
        seed: int,
    ) -> None:
        self.scans, self.config, self.train, self.seed = scans, config, train, seed
        self.roi = tuple(min(r, side) for r, side in zip(roi, scans.shape, strict=True))
        self.repetitions = config.crops_per_volume if train else 1
        # An empty crop has no PSNR to speak of.
        self.foreground = config.foreground_crops if train else 1.0
        self.boxes = [scans.box(index) for index in range(len(scans))]

    def __len__(self) -> int:
        return len(self.scans) * len(MODALITIES) * self.repetitions

    def __getitem__(self, key: BatchKey) -> Batch:
        """Return the batch of the crops ``key.indices``."""
        crops = np.empty((len(key.indices), 1, *self.roi), np.float32)
        labels = np.empty(len(key.indices), np.int64)
        names: list[str] = []
        for position, item in enumerate(key.indices):
            rest, modality = divmod(item, len(MODALITIES))
            scan, repetition = divmod(rest, self.repetitions)
            epoch = key.epoch if self.train else 0
            shared = np.random.default_rng([self.seed, epoch, scan, repetition])
            start = crop_start(
                shared, self.scans.shape, self.roi, self.boxes[scan], self.foreground
            )
            crop = self.scans.crop(scan, modality, start, self.roi)
            if self.train:
                own = np.random.default_rng([self.seed, epoch, scan, repetition, modality])
                crop = augment(crop, self.config.augmentation, _FLIP_AXES, shared, own)
            crops[position, 0], labels[position] = crop, modality
            names.append(f"{self.scans.scans[scan].name}/{MODALITIES[modality]}")
        return Batch(torch.from_numpy(crops), torch.from_numpy(labels), names)


def crop_loader(
    scans: ScanSet, roi: Sequence[int], config: BraTSDataConfig, *, train: bool, seed: int
) -> DataLoader[Batch]:
    """Return batches of crops; shuffled and changed by (seed, epoch) in training."""
    source = ScanCrops(scans, roi, config, train=train, seed=seed)
    return make_loader(
        source, config.batch_size, train=train, seed=seed, num_workers=config.num_workers
    )
