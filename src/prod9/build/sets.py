"""Sets of volumes to be measured, from a configuration or a trained generator."""

import torch
from rich.progress import Progress
from torch import Tensor

from prod9.config import MedMNISTSourceConfig, SamplerConfig, SlidingWindowConfig
from prod9.data import medmnist
from prod9.data.brain_regions import SPACING_MM
from prod9.data.collection import Collection, of_tensor, of_volume_set
from prod9.data.medmnist import Split
from prod9.generator import Generator


def spacing_of(data: MedMNISTSourceConfig) -> tuple[float, float, float] | None:
    """Return the voxel size; None for MedMNIST's cubes, which were resampled without a record."""
    if data.dataset_name != medmnist.BRAIN:
        return None
    spacing = SPACING_MM[data.size]
    return spacing, spacing, spacing


def split_of(data: MedMNISTSourceConfig, split: Split, count: int | None = None) -> Collection:
    """Return a split of a data set in MedMNIST's layout; its first ``count`` volumes, if given.

    Raises:
        UserError: a file is missing and cannot be had, or cannot be read.

    """
    volumes = medmnist.load(data, split)
    chosen = volumes if count is None else volumes.first(count)
    return of_volume_set(chosen, f"{data.dataset_name}/{split}", spacing_of(data))


def drawn(
    generator: Generator,
    labels: Tensor,
    sampler: SamplerConfig,
    *,
    seed: int,
    batch_size: int,
    windows: SlidingWindowConfig | None = None,
) -> Collection:
    """Draw a volume for each label, in memory."""
    parts: list[Tensor] = []
    batches = -(-len(labels) // batch_size)
    with Progress(transient=True) as bar:
        task = bar.add_task("generating", total=batches)
        for _, volumes in generator.generate(
            labels,
            sampler,
            seed,
            batch_size=batch_size,
            windows=windows,
            on_window=lambda share: bar.advance(task, share),
        ):
            parts.append(volumes)
    spacing = generator.tokenizer.spec.spacing_mm
    return of_tensor(
        torch.cat(parts), labels, generator.class_names, f"drawn, seed {seed}", spacing
    )
