"""Cached features of real volumes: one reference set serves many generators."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.errors import Prod9Error
from prod9.evaluation.features.spaces import FeatureSpace, features_of
from prod9.evaluation.work_cache import WorkCache, read_checksummed, write_checksummed
from prod9.losses.weights import cache_dir
from prod9.runtime.distributed import is_main, main_first, total, world_size

_VERSION = 2
"""Raised when a feature space computes something else with the same weights, or files change."""
_BLOCK = 32
"""Volumes whose features are written together: the most that is lost when a process dies."""


def cached_features(
    space: FeatureSpace, volumes: VolumeSet, on_volume: Callable[[int], None]
) -> Tensor:
    """Return :func:`features_of`, from the user's cache if they are there.

    Entries are named by the network's weights, its kind of device and the content of the volumes. A
    cache that is damaged or cannot be written costs time only. The processes of a distributed run
    share the work, and an interrupted run continues.
    """
    if space.key == "classifier":  # trained anew each time, and quick
        return features_of(space, volumes, on_volume)
    content = f"{_VERSION} {space.name} {space.weights_sha256} {volumes.sha256} {space.device}"
    path = cache_dir() / "features" / f"{hashlib.sha256(content.encode()).hexdigest()}.npy"
    shape, blocks = (len(volumes), space.dimensions), WorkCache(path.with_suffix(".parts"))
    kept = _read(path, shape)
    # Machines may each have a cache of their own: either all processes return here, or none.
    if int(total(torch.tensor(float(kept is not None)))) == world_size() and kept is not None:
        on_volume(len(volumes))
        blocks.clear()  # of a run that was killed just before it did so
        return kept
    done = 0

    def make(block: int) -> np.ndarray:
        nonlocal done
        start = block * _BLOCK
        part = volumes.select(range(start, min(start + _BLOCK, len(volumes))))
        features = features_of(space, part, lambda n: on_volume(done + n))
        done += len(part)
        return features.numpy()

    names = [f"{start}" for start in range(0, len(volumes), _BLOCK)]
    made = [np.empty((0, space.dimensions)), *blocks.all_of(names, make)]
    features = torch.from_numpy(np.concatenate(made))
    with main_first():  # processes that share its disk find the file written
        if is_main() or _read(path, shape) is None:
            with suppress(Prod9Error):
                write_checksummed(path, features.numpy())
    blocks.clear()  # not before the whole is written
    return features


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    stored = read_checksummed(path)
    if stored is None or stored.shape != shape or stored.dtype != np.float64:
        return None
    return torch.from_numpy(stored) if np.isfinite(stored).all() else None
