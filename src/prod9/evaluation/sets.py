"""Sets of volumes to be measured, from a configuration or a trained generator."""

import numpy as np
import torch

from prod9.config import MedMNISTSourceConfig
from prod9.data import medmnist
from prod9.data.medmnist import spacing_of
from prod9.data.splits import Split
from prod9.data.volume_sets.volume_set import VolumeSet, of_tensor, of_volume_set
from prod9.evaluation.work_cache import WorkCache
from prod9.model import Model
from prod9.runtime.distributed import world_size
from prod9.runtime.progress import progress_bar
from prod9.sample_request import SampleRequest

_NOWHERE = WorkCache()


def split_of(data: MedMNISTSourceConfig, split: Split, count: int | None = None) -> VolumeSet:
    """Return a split of a data set in MedMNIST's layout; its first ``count`` volumes, if given.

    Raises:
        Prod9Error: a file is missing and cannot be had, or cannot be read.
    """
    volumes = medmnist.load(data, split)
    chosen = volumes if count is None else volumes.first(count)
    return of_volume_set(chosen, f"{data.dataset_name}/{split}", spacing_of(data))


def generated(model: Model, request: SampleRequest, kept: WorkCache = _NOWHERE) -> VolumeSet:
    """Generate the volumes of a request, in memory; the tokens are ``kept`` and shared."""
    spec = model.tokenizer.spec
    decided_by = [model.digest, request]
    done = 0.0
    with progress_bar("generating", "batches") as tell:

        def make(number: int) -> np.ndarray:
            def on_window(windows: int, total: int) -> None:
                nonlocal done
                done += 1 / total
                tell(done, request.num_batches / world_size())

            return model.sample(request, number, on_window).cpu().numpy()

        names = [f"batch {number} of {decided_by}" for number in range(request.num_batches)]
        parts = [
            model.decode(
                torch.from_numpy(tokens).to(model.device), spec.volume_shape, request.windows
            )
            for tokens in kept.all_of(names, make)
        ]
    labels, name = torch.tensor(request.labels), f"generated, seed {request.seed}"
    return of_tensor(torch.cat(parts), labels, model.class_names, name, spec.spacing_mm)
