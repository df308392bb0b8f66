"""How alike the volumes of a class are."""

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.metrics.ssim import MS_SSIM_WINDOW, ms_ssim_matrix
from prod9.results.schema import MOST

_LARGEST = 64
"""Voxels a side; larger volumes are averaged down first."""
_RESAMPLES = 2000


@dataclass(frozen=True)
class Diversity:
    """MS-SSIM of pairs within classes: high means little variety."""

    mean: float
    """Over classes, each the mean over its pairs."""
    interval: tuple[float, float] | None
    """95 %: bootstrap over the volumes of each class; None below four volumes in one of them."""
    per_class: dict[str, float]


def averaged_down(volumes: Tensor, largest: int) -> Tensor:
    """Return (N, 1, D, H, W) with no side above ``largest``: means over equal blocks of voxels."""
    factors = [-(-side // largest) for side in volumes.shape[2:]]
    if max(factors) == 1:
        return volumes
    return F.avg_pool3d(volumes, factors, ceil_mode=True, count_include_pad=False)


def flat_voxels(volumes: VolumeSet, largest: int = 32) -> Tensor:
    """Return all volumes as vectors, float32 (N, voxels), averaged down to ``largest`` a side."""
    return torch.cat([averaged_down(batch, largest).flatten(1) for batch in volumes.batches(16)])


def within_class_msssim(
    volumes: VolumeSet, seed: int, classes: Container[str] | None = None
) -> Diversity | None:
    """Return the MS-SSIM within classes; None where no class has two volumes, or a side is below 5.

    Args:
        volumes: to be compared.
        seed: of the bootstrap.
        classes: which ones count; all when left out.
    """
    if min(-(-side // -(-side // _LARGEST)) for side in volumes.shape) < MS_SSIM_WINDOW:
        return None
    fewest = MOST
    random = np.random.default_rng(seed)
    means: dict[str, float] = {}
    resampled: list[np.ndarray] = []
    for label, name in enumerate(volumes.class_names):
        members = volumes.of_class(label)
        if len(members) < 2 or (classes is not None and name not in classes):
            continue
        fewest = min(fewest, len(members))
        chosen = members[np.linspace(0, len(members) - 1, min(MOST, len(members))).astype(int)]
        scores = ms_ssim_matrix(averaged_down(volumes.tensor(chosen), _LARGEST)).numpy()
        means[name] = float(np.nanmean(scores))
        drawn = random.integers(len(chosen), size=(_RESAMPLES, len(chosen)))
        # A volume with itself is no pair (NaN on the diagonal): keep draws of at least two volumes.
        drawn = drawn[drawn.min(1) < drawn.max(1)]
        found = np.nanmean(scores[drawn[:, :, None], drawn[:, None]], (1, 2))
        resampled.append(np.resize(found, _RESAMPLES))
    if not means:
        return None
    low, high = np.quantile(np.mean(resampled, 0), (0.025, 0.975))
    interval = (float(low), float(high)) if fewest >= 4 else None
    return Diversity(float(np.mean(list(means.values()))), interval, means)
