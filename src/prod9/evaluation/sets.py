"""Volumes of a trained generator, to be measured."""

import numpy as np
import torch

from prod9.data.volume_sets.volume_set import VolumeSet, of_tensor
from prod9.evaluation.work_cache import WorkCache
from prod9.model import Model
from prod9.runtime.distributed import world_size
from prod9.runtime.progress import progress_bar
from prod9.sample_request import SampleRequest

_NOWHERE = WorkCache()


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
