"""Sets of volumes to be measured, from a configuration or a trained generator."""

import numpy as np
import torch
from torch import Tensor

from prod9.config import MedMNISTSourceConfig, SamplerConfig, SlidingWindowConfig
from prod9.data import medmnist
from prod9.data.medmnist import spacing_of
from prod9.data.splits import Split
from prod9.data.volume_sets.volume_set import VolumeSet, of_tensor, of_volume_set
from prod9.evaluation.work_cache import WorkCache
from prod9.model import Model
from prod9.runtime.distributed import world_size
from prod9.runtime.progress import progress_bar

_NOWHERE = WorkCache()


def split_of(data: MedMNISTSourceConfig, split: Split, count: int | None = None) -> VolumeSet:
    """Return a split of a data set in MedMNIST's layout; its first ``count`` volumes, if given.

    Raises:
        Prod9Error: a file is missing and cannot be had, or cannot be read.
    """
    volumes = medmnist.load(data, split)
    chosen = volumes if count is None else volumes.first(count)
    return of_volume_set(chosen, f"{data.dataset_name}/{split}", spacing_of(data))


def drawn(
    generator: Model,
    labels: Tensor,
    sampler: SamplerConfig,
    *,
    seed: int,
    batch_size: int,
    windows: SlidingWindowConfig | None = None,
    kept: WorkCache = _NOWHERE,
) -> VolumeSet:
    """Draw a volume for each label, in memory; the tokens are ``kept`` and shared."""
    windows = windows or SlidingWindowConfig()
    spec, grid = generator.tokenizer.spec, generator.tokenizer.grid()
    batches = -(-len(labels) // batch_size)
    decided_by = [generator.digest, labels.tolist(), sampler, seed, batch_size, windows.overlap]
    done = 0.0
    with progress_bar("generating", "batches") as tell:

        def on_window(share: float) -> None:
            nonlocal done
            done += share
            tell(done, batches / world_size())

        def make(number: int) -> np.ndarray:
            return (
                generator.draw_batch(
                    labels,
                    number,
                    sampler,
                    seed,
                    batch_size=batch_size,
                    overlap=windows.overlap,
                    grid=grid,
                    on_window=on_window,
                )
                .cpu()
                .numpy()
            )

        names = [f"batch {number} of {decided_by}" for number in range(batches)]
        parts = [
            generator.decode(
                torch.from_numpy(tokens).to(generator.device), spec.volume_shape, windows
            )
            for tokens in kept.all_of(names, make)
        ]
    return of_tensor(
        torch.cat(parts), labels, generator.class_names, f"drawn, seed {seed}", spec.spacing_mm
    )
