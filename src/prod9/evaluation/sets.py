"""Volumes of a trained generator, to be measured."""

import numpy as np
import torch
from torch import Tensor

from prod9.config import SamplerConfig, SlidingWindowConfig
from prod9.data.volume_sets.volume_set import VolumeSet, of_tensor
from prod9.evaluation.work_cache import WorkCache
from prod9.model import Model
from prod9.runtime.distributed import world_size
from prod9.runtime.progress import pace

_NOWHERE = WorkCache()


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
    with pace("generating", "batches") as tell:

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
