"""Features of real volumes, kept: one reference serves many generators."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.errors import Prod9Error
from prod9.evaluation.checksummed_arrays import read_sealed, write_sealed
from prod9.evaluation.features.spaces import FeatureSpace, features_of
from prod9.evaluation.work_cache import WorkCache
from prod9.losses.weights import cache_dir
from prod9.runtime.distributed import is_main, main_first, total, world_size

_VERSION = 2
"""Raised when a feature space computes something else with the same weights, or files change."""
_BLOCK = 32
"""Volumes whose features are written together: what is lost at most when a process dies."""


def cached_features(
    space: FeatureSpace, collection: VolumeSet, on_volume: Callable[[int], None]
) -> Tensor:
    """Return :func:`features_of`, from the user's cache where it is there.

    Entries are named by the network's weights, its kind of device and the volumes' content; a cache
    that cannot be written, or is damaged, costs time, not the evaluation. The processes of a
    distributed run share the work, and whoever was killed goes on where it was.
    """
    if space.key == "classifier":  # trained anew each time, and quick
        return features_of(space, collection, on_volume)
    path = _path(space, collection)
    kept = _read(path, (len(collection), space.dimensions))
    blocks = WorkCache(path.with_suffix(".parts"))
    # Machines may each have a cache of their own: either all go on from here, or none.
    if int(total(torch.tensor(float(kept is not None)))) == world_size() and kept is not None:
        on_volume(len(collection))
        blocks.clear()  # of a run that was killed just before it did
        return kept
    features = _in_blocks(space, collection, blocks, on_volume)
    with main_first():  # who shares its disk finds it written
        if is_main() or _read(path, (len(collection), space.dimensions)) is None:
            with suppress(Prod9Error):
                write_sealed(path, features.numpy())
    blocks.clear()  # not before the whole is there
    return features


def _in_blocks(
    space: FeatureSpace, collection: VolumeSet, blocks: WorkCache, on_volume: Callable[[int], None]
) -> Tensor:
    starts = range(0, len(collection), _BLOCK)
    done = 0

    def make(block: int) -> np.ndarray:
        nonlocal done
        part = collection.select(range(starts[block], min(starts[block] + _BLOCK, len(collection))))
        features = features_of(space, part, lambda n: on_volume(done + n))
        done += len(part)
        return features.numpy()

    shape = (0, space.dimensions)
    made = [np.empty(shape), *blocks.all_of([f"{start}" for start in starts], make)]
    return torch.from_numpy(np.concatenate(made))


def _path(space: FeatureSpace, collection: VolumeSet) -> Path:
    content = f"{_VERSION} {space.name} {space.weights_sha256} {collection.sha256} {space.device}"
    return cache_dir() / "features" / f"{hashlib.sha256(content.encode()).hexdigest()}.npy"


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    stored = read_sealed(path)
    if (
        stored is None
        or stored.shape != shape
        or stored.dtype != np.float64
        or not np.isfinite(stored).all()
    ):
        return None
    return torch.from_numpy(stored)
