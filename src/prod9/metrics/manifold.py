"""How much of each set lies where the other is dense: quality and variety, measured apart.

A set's region is the union of balls, one around each vector, that reach to its k-th nearest fellow
(itself not counted; an exact duplicate is). Inside means strictly nearer than that, as in the
authors' package ``prdc``. Distances are exact, in fp64.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from prod9.metrics.feature_sets import as_pair, distance_blocks


def precision_recall(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"], k: int = 3
) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991), in [0, 1].

    Precision is the share of generated vectors inside the real region (quality), recall that of
    real vectors inside the generated region (variety).

    Raises:
        ValueError: k below 1, at most k vectors in a set, vectors of different lengths, or NaN or
            infinite features.
    """
    real, generated = _checked(real, generated, k)
    of_real, of_generated = _radii(real, k), _radii(generated, k)
    realistic = torch.zeros(len(generated), dtype=torch.bool, device=real.device)
    reached = 0
    for rows, distance in distance_blocks(real, generated):
        realistic |= (distance < of_real[rows, None]).any(0)
        reached += int((distance < of_generated).any(1).sum())
    return int(realistic.sum()) / len(generated), reached / len(real)


def density_coverage(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"], k: int = 5
) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, arXiv 2002.09797): less affected by outliers.

    Density is the number of real balls that a generated vector lies in, over k: about 1 for two
    samples of one distribution, above 1 where generated vectors keep to the dense parts. Coverage
    is the share of real balls with a generated vector inside: 1 - 1/2^k on average for two large
    and equally large samples of one distribution.

    Raises:
        ValueError: k below 1, at most k vectors in a set, vectors of different lengths, or NaN or
            infinite features.
    """
    real, generated = _checked(real, generated, k)
    of_real = _radii(real, k)
    inside = covered = 0
    for rows, distance in distance_blocks(real, generated):
        within = distance < of_real[rows, None]
        inside += int(within.sum())
        covered += int(within.any(1).sum())
    return inside / (k * len(generated)), covered / len(real)


def _checked(real: Tensor, generated: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if k < 1:
        raise ValueError(f"k is {k}; at least 1 neighbour is needed")
    return as_pair(real, generated, least=k + 1)


def _radii(x: Float64[Tensor, "n d"], k: int) -> Float64[Tensor, " n"]:
    """Distance of each vector to its k-th nearest fellow; it is itself the nearest of k + 1."""
    return torch.cat([distance.kthvalue(k + 1).values for _, distance in distance_blocks(x, x)])
