"""Feature spaces: networks that turn a volume into a vector, so that sets can be compared."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prod9.config.evaluation import FeatureSpaceKey
from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.evaluation.work_cache import WorkCache

_BLOCK = 32
"""Volumes whose features are kept together."""
_BATCH_VOXELS = 8 * 32**3
"""Volumes are embedded one at a time where they are larger than this together."""
CPU = torch.device("cpu")
NO_CACHE = WorkCache()
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FeatureSpace:
    """A network that turns a volume into a vector. Distances compare only within one space."""

    key: FeatureSpaceKey
    name: str
    """For tables: network, what it was trained on, what goes in."""
    dimensions: int
    weights_sha256: str
    embed: Embed
    """(B, 1, D, H, W) in [0, 1], on the CPU -> fp32 (B, dimensions), without gradient."""
    device: str = "cpu"
    """Kind of device that the network is on; others differ in the last digits."""


def features_of(space: FeatureSpace, volumes: VolumeSet, cache: WorkCache = NO_CACHE) -> Tensor:
    """Return the features of all volumes in order, float64 (N, dimensions).

    A few small volumes, or one large one, are read at a time. Features are kept in ``cache`` under
    the network's weights, its kind of device and the content of the volumes.
    """
    names = [""] * -(-len(volumes) // _BLOCK)
    if cache.folder is not None:
        content = f"{space.name} {space.weights_sha256} {space.device} {volumes.sha256}"
        names = [f"features {block} of {content}" for block in range(len(names))]

    batch = max(1, _BATCH_VOXELS // math.prod(volumes.shape))

    def make(block: int) -> np.ndarray:
        rows = range(block * _BLOCK, min((block + 1) * _BLOCK, len(volumes)))
        found = [space.embed(volume) for volume in volumes.select(rows).batches(batch)]
        return torch.cat(found).double().numpy()

    return torch.from_numpy(np.concatenate(cache.all_of(names, make, f"features: {volumes.name}")))


def on_device(
    embed: Callable[[Tensor], Tensor], device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Return the ``embed`` of a :class:`FeatureSpace` from a network's on ``device``."""

    def embed_there(volume: Tensor) -> Tensor:
        with torch.no_grad(), in_full_precision(device):
            return embed(volume.float().to(device)).cpu()

    return embed_there


@contextmanager
def in_full_precision(device: torch.device) -> Generator[None]:
    """Convolve in fp32 with a deterministic algorithm; GPUs use TF32 (10 bits) by default."""
    with (
        torch.autocast(device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
    ):
        yield
