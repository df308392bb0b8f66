"""Features of real volumes, kept: one reference serves many generators."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prod9.data.collection import Collection
from prod9.errors import UserError
from prod9.evaluate.feature_spaces import FeatureSpace, features_of
from prod9.files import atomic_write
from prod9.losses.weights import cache_dir

_VERSION = 1
"""Raised when a feature space computes something else with the same weights."""


def cached_features(
    space: FeatureSpace, collection: Collection, on_volume: Callable[[int], None]
) -> Tensor:
    """Return :func:`features_of`, from the user's cache where it is there.

    Entries are named by the network's weights and the volumes' content; a cache that cannot be
    written costs time, not the evaluation.
    """
    if space.key == "classifier":  # trained anew each time, and quick
        return features_of(space, collection, on_volume)
    path = _path(space, collection)
    kept = _read(path, (len(collection), space.dimensions))
    if kept is not None:
        on_volume(len(collection))
        return kept
    features = features_of(space, collection, on_volume)
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, features.numpy(), allow_pickle=False)
    except UserError:
        pass
    return features


def _path(space: FeatureSpace, collection: Collection) -> Path:
    content = f"{_VERSION} {space.name} {space.weights_sha256} {collection.sha256}"
    return cache_dir() / "features" / f"{hashlib.sha256(content.encode()).hexdigest()}.npy"


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or damaged: made again
        return None
    if stored.shape != shape or stored.dtype != np.float64 or not np.isfinite(stored).all():
        return None
    return torch.from_numpy(stored)
