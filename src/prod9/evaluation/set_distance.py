"""One set of feature vectors against another: every figure of a feature space."""

from collections.abc import Callable

import torch
from torch import Tensor

from prod9.metrics.bootstrap import resampled_interval
from prod9.metrics.frechet import frechet_distance
from prod9.metrics.kernel_distance import kernel_distance
from prod9.metrics.manifold import density_coverage, precision_recall
from prod9.results.distances import Neighbours, SetDistance

FEWEST = 8
"""Volumes below which a distance has no interval."""
_K_PRECISION, _K_DENSITY = 3, 5
_MOST_FOR_INTERVAL = 600
"""Vectors that an interval is computed from; of more it would take hours."""


def set_distance(features: Tensor, reference: Tensor, seed: int) -> SetDistance:
    """Measure one set against a reference, (N, D) and (M, D), N and M at least 2."""
    frechet_interval = kernel_interval = None
    if min(len(features), len(reference)) >= FEWEST:
        low, high = _interval(frechet_distance, features, reference, seed)
        frechet_interval = max(0.0, low), high
        kernel_interval = _interval(kernel_distance, features, reference, seed)
    return SetDistance(
        **neighbours(features, reference).model_dump(),
        frechet=frechet_distance(features, reference),
        frechet_interval=frechet_interval,
        kernel=kernel_distance(features, reference),
        kernel_interval=kernel_interval,
    )


def neighbours(features: Tensor, reference: Tensor) -> Neighbours:
    """Measure what depends on the numbers of volumes: precision, recall, density, coverage."""
    n, m = len(features), len(reference)
    near = precision_recall(reference, features, _K_PRECISION) if min(n, m) > _K_PRECISION else None
    dense = density_coverage(reference, features, _K_DENSITY) if min(n, m) > _K_DENSITY else None
    return Neighbours(
        volumes=n,
        reference_volumes=m,
        precision=near and near[0],
        recall=near and near[1],
        density=dense and dense[0],
        coverage=dense and dense[1],
    )


def _interval(
    statistic: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor, seed: int
) -> tuple[float, float]:
    """Return an interval of a distance; of large sets too wide, because it is a subset's."""
    stream = torch.Generator().manual_seed(seed)
    few = [
        rows[torch.randperm(len(rows), generator=stream)[:_MOST_FOR_INTERVAL]] for rows in (x, y)
    ]
    if len(few[0]) == len(x) and len(few[1]) == len(y):
        return resampled_interval(statistic, x, y, seed=seed)
    low, high = resampled_interval(statistic, few[0], few[1], seed=seed)
    shift = statistic(x, y) - statistic(few[0], few[1])
    return low + shift, high + shift
