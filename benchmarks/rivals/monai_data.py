"""The same data through MONAI: ``CacheDataset`` with everything cached, and its ``DataLoader``.

As its fast-training guide has it: all that is not random comes before the cache, tensors without
metadata come out of it, and the cache is filled by one thread per core.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, set_track_meta
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    Orientationd,
    RandSpatialCropd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
)

from prod9.config import PreprocessingConfig
from prod9.data.brats.layouts import MODALITIES, Case

IMAGE = ["image"]


def _loader(items: list[Any], transforms: list[Any], batch: int, workers: int) -> DataLoader:
    set_track_meta(True)  # orientation is read from it, while the cache is filled
    data = CacheDataset(
        items,
        Compose(transforms),
        cache_rate=1.0,
        num_workers=torch.get_num_threads(),
        progress=False,
    )
    set_track_meta(False)  # random transforms are faster without
    return DataLoader(
        data,
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def npz_loader(path: Path, batch: int, workers: int) -> DataLoader:
    """Training volumes of an npz in MedMNIST's layout, as float32 in [0, 1]."""
    with np.load(path) as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"][:, 0].astype(np.int64)
    items = [
        {"image": image[None], "label": label} for image, label in zip(images, labels, strict=True)
    ]
    transforms = [
        ScaleIntensityRanged(IMAGE, a_min=0, a_max=255, b_min=0, b_max=1),
        EnsureTyped(IMAGE, track_meta=False),
    ]
    return _loader(items, transforms, batch, workers)


def scan_loader(
    cases: Sequence[Case],
    preprocessing: PreprocessingConfig,
    roi: Sequence[int],
    batch: int,
    workers: int,
) -> DataLoader:
    """Random crops of every modality of every scan, RAS, scaled by percentiles.

    Nothing is resampled: the scans have the spacing that is asked for. (prod9 does not either.)
    """
    items = [
        {"image": str(case.files[modality]), "label": label}
        for case in cases
        for label, modality in enumerate(MODALITIES)
    ]
    low, high = preprocessing.percentiles
    transforms = [
        LoadImaged(IMAGE),
        EnsureChannelFirstd(IMAGE),
        Orientationd(IMAGE, axcodes="RAS", labels=None),
        ScaleIntensityRangePercentilesd(IMAGE, lower=low, upper=high, b_min=0, b_max=1, clip=True),
        EnsureTyped(IMAGE, track_meta=False),
        RandSpatialCropd(IMAGE, roi_size=tuple(roi), random_size=False),
    ]
    return _loader(items, transforms, batch, workers)


def token_loader(folder: Path, batch: int, workers: int) -> DataLoader:
    """Tokens of a folder with one ``.npy`` a volume, int64."""
    labels = np.load(folder / "labels.npy")
    items = [
        {"image": str(folder / f"{index:05d}.npy"), "label": label}
        for index, label in enumerate(labels)
    ]
    transforms = [
        LoadImaged(IMAGE, reader="NumpyReader"),
        EnsureTyped(IMAGE, dtype=torch.int64, track_meta=False),
    ]
    return _loader(items, transforms, batch, workers)
