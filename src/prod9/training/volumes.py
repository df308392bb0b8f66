"""What Stage 1 trains on and is measured with, whatever the data set."""

from dataclasses import dataclass

import numpy as np
from torch.utils.data import DataLoader

from prod9.config import (
    BraTSDataConfig,
    MedMNISTDataConfig,
    PreprocessingConfig,
    Stage1Config,
)
from prod9.data import medmnist
from prod9.data.batches import BatchKey, BatchSource
from prod9.data.brats.cases import MODALITIES
from prod9.data.brats.open_scans import open_scans
from prod9.data.crops import crop_loader
from prod9.data.medmnist import spacing_of
from prod9.data.volumes import Batch, loader
from prod9.errors import Prod9Error
from prod9.runtime.distributed import main_first

SMALLEST_SIDE = 11


@dataclass(frozen=True)
class TrainingVolumes:
    """Batches of both splits, and what the tokenizer will say of its volumes."""

    train: DataLoader[Batch]
    val: DataLoader[Batch]
    class_names: tuple[str, ...]
    volume_shape: tuple[int, int, int]
    """Of a whole volume; training may see crops of it."""
    spacing_mm: tuple[float, float, float]
    preprocessing: PreprocessingConfig | None
    subjects: tuple[str, ...]
    """Of the training split, where it is by subject."""
    summary: str

    def examples(self, count: int) -> Batch:
        """Return ``count`` validation volumes, always the same, spread over the split."""
        source = self.val.dataset
        assert isinstance(source, BatchSource)
        total = len(source)
        chosen = np.linspace(0, total - 1, min(count, total)).round().astype(int)
        return source[BatchKey(0, chosen.tolist())]


def training_volumes(config: Stage1Config) -> TrainingVolumes:
    """Open the training and validation split of a configuration.

    Raises:
        Prod9Error: data that is missing, cannot be had or cannot be read.
    """
    match config.data:
        case MedMNISTDataConfig():
            return _medmnist(config, config.data)
        case BraTSDataConfig():
            return _brats(config, config.data)


def _medmnist(config: Stage1Config, data: MedMNISTDataConfig) -> TrainingVolumes:
    with main_first():  # it may have to be downloaded
        train, val = medmnist.load(data, "train"), medmnist.load(data, "val")
    side = data.size
    unknown = (1.0, 1.0, 1.0)
    return TrainingVolumes(
        train=loader(train, data, train=True, seed=config.seed),
        val=loader(val, data, train=False, seed=config.seed),
        class_names=train.class_names,
        volume_shape=(side, side, side),
        spacing_mm=spacing_of(data) or unknown,
        preprocessing=None,
        subjects=(),
        summary=f"{len(train)} training and {len(val)} validation volumes of {side}^3",
    )


def _brats(config: Stage1Config, data: BraTSDataConfig) -> TrainingVolumes:
    scans = open_scans(data, data.preprocessing)
    train, val = scans["train"], scans["val"]
    roi = config.sliding_window.roi_size
    if min(*roi, *train.shape) < SMALLEST_SIDE:
        raise Prod9Error(
            f"sliding_window.roi_size is {list(roi)} and the preprocessed scans are "
            f"{list(train.shape)}; every side must be at least {SMALLEST_SIDE} voxels, SSIM's "
            "window: choose larger crops or a smaller data.preprocessing.spacing_mm."
        )
    return TrainingVolumes(
        train=crop_loader(train, roi, data, train=True, seed=config.seed),
        val=crop_loader(val, roi, data, train=False, seed=config.seed),
        class_names=MODALITIES,
        volume_shape=train.shape,
        spacing_mm=data.preprocessing.spacing_mm,
        preprocessing=data.preprocessing,
        subjects=train.subjects,
        summary=f"{len(train)} training and {len(val)} validation scans of {len(MODALITIES)} "
        f"modalities, {'x'.join(map(str, train.shape))}, in crops of {'x'.join(map(str, roi))}",
    )
