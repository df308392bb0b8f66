"""Precision, recall, density and coverage: how far each of two sets covers the other."""

from collections.abc import Iterator

import torch
from jaxtyping import Float64
from torch import Tensor

from prod9.metrics.feature_sets import Vectors, Vectors64, checked

_BLOCK_ENTRIES = 1 << 22
"""Euclidean distances held at once."""


def precision_recall(real: Vectors, generated: Vectors, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991), in [0, 1].

    The region of a set is the union of balls, one around each vector, that reach to its k-th
    nearest other vector. Inside means strictly nearer than that, as in the package ``prdc``.
    Precision is the share of generated vectors inside the real region (quality), recall that of
    real vectors inside the generated region (variety).
    """
    real, generated = checked(real, generated, least=k + 1)
    of_real, of_generated = _radii(real, k), _radii(generated, k)
    realistic = torch.zeros(len(generated), dtype=torch.bool, device=real.device)
    reached = 0
    for rows, distance in _distance_blocks(real, generated):
        realistic |= (distance < of_real[rows, None]).any(0)
        reached += int((distance < of_generated).any(1).sum())
    return int(realistic.sum()) / len(generated), reached / len(real)


def density_coverage(real: Vectors, generated: Vectors, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, arXiv 2002.09797): less affected by outliers.

    Density is the number of real balls (as in :func:`precision_recall`) that a generated vector
    lies in, over k: about 1 for two samples of one distribution, above 1 where generated vectors
    keep to the dense parts. Coverage is the share of real balls with a generated vector inside:
    1 - 1/2^k on average for two large and equally large samples of one distribution.
    """
    real, generated = checked(real, generated, least=k + 1)
    of_real = _radii(real, k)
    inside = covered = 0
    for rows, distance in _distance_blocks(real, generated):
        within = distance < of_real[rows, None]
        inside += int(within.sum())
        covered += int(within.any(1).sum())
    return inside / (k * len(generated)), covered / len(real)


def _radii(x: Vectors64, k: int) -> Float64[Tensor, " n"]:
    """Distance of each vector to its k-th nearest other; it is itself the nearest of k + 1."""
    return torch.cat([distance.kthvalue(k + 1).values for _, distance in _distance_blocks(x, x)])


def _distance_blocks(x: Vectors64, y: Vectors64) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the rows of ``x``, and their Euclidean distances from ``y``: (rows, m).

    From differences, not from |x|^2 + |y|^2 - 2 x y: the distance of a copy is exactly 0, and equal
    distances compare as equal.
    """
    rows = max(1, _BLOCK_ENTRIES // len(y))
    for first in range(0, len(x), rows):
        block = slice(first, min(first + rows, len(x)))
        yield block, torch.cdist(x[block], y, compute_mode="donot_use_mm_for_euclid_dist")
