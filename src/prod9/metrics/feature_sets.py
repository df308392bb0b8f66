"""Distances of two sets of feature vectors, and how far each covers the other, exact and in fp64.

All functions but :func:`nearest_neighbours` raise ``ValueError`` for too few vectors, vectors of
different lengths, and NaN or infinite features.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

_ROWS = 1024
"""Rows of a kernel matrix held at once."""
_BLOCK_ENTRIES = 1 << 22
"""Euclidean distances held at once."""

_CHUNK = 64
"""Volumes of each side whose nearest neighbours are searched at once."""

Vectors = Float[Tensor, "_n d"]
Vectors64 = Float64[Tensor, "_n d"]


def frechet_distance(x: Vectors, y: Vectors) -> float:
    """Squared Frechet distance |mx - my|^2 + Tr(Sx + Sy - 2 sqrt(Sx Sy)), at least 0.

    Of the Gaussians with the sets' means and sample covariances (n - 1), as in the FID (Dowson &
    Landau 1982, doi 10.1016/0047-259X(82)90077-X; Heusel et al. 2017, arXiv 1706.08500). Its
    expectation falls with the number of vectors, and is above 0 for two samples of one
    distribution: compare only equally large sets (Chong & Forsyth 2020, arXiv 1911.07023).
    """
    x, y = _checked(x, y, least=2)
    a, b = _covariance_root(x), _covariance_root(y)
    # With Sx = A^T A and Sy = B^T B, the eigenvalues of Sx Sy are the squared singular values of
    # A B^T. No square root of a matrix is needed, which few vectors would make singular.
    overlap = torch.linalg.svdvals(a @ b.T).sum()
    shift = (x.mean(0) - y.mean(0)).square().sum()
    # Rounding could make the distance of equal sets negative.
    return max(0.0, float(shift + a.square().sum() + b.square().sum() - 2 * overlap))


def _covariance_root(x: Vectors64) -> Vectors64:
    """Return R with R^T R = the sample covariance of x, in min(n, d) rows."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred


def kernel_distance(x: Vectors, y: Vectors) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x y / d + 1)^3.

    The kernel distance (KID) of Binkowski et al. 2018, arXiv 1801.01401. Unlike the Frechet
    distance it is 0 on average for two samples of one distribution, whatever their number; about
    half of such pairs come out below 0.
    """
    x, y = _checked(x, y, least=2)
    return _mean_within(x) + _mean_within(y) - 2 * _kernel_sum(x, y) / (len(x) * len(y))


def _kernel_sum(x: Vectors64, y: Vectors64) -> float:
    return sum(float((part @ y.T / x.shape[1] + 1).pow(3).sum()) for part in x.split(_ROWS))


def _mean_within(x: Vectors64) -> float:
    """Mean of the kernel over pairs of different vectors: a vector with itself would bias it."""
    itself = float((x.square().mean(1) + 1).pow(3).sum())
    return (_kernel_sum(x, x) - itself) / (len(x) * (len(x) - 1))


def precision_recall(real: Vectors, generated: Vectors, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991), in [0, 1].

    The region of a set is the union of balls, one around each vector, that reach to its k-th
    nearest other vector. Inside means strictly nearer than that, as in the package ``prdc``.
    Precision is the share of generated vectors inside the real region (quality), recall that of
    real vectors inside the generated region (variety).
    """
    real, generated = _checked(real, generated, least=k + 1)
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
    real, generated = _checked(real, generated, least=k + 1)
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


def nearest_neighbours(
    queries: Float[Tensor, "n *voxels"], references: Float[Tensor, "m *voxels"]
) -> tuple[Float64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Return for each query the distance and the index of its nearest reference, by full search.

    Distances are root mean squared differences, fp64. Candidates are ranked by
    |q|^2 + |r|^2 - 2 q r; the distance of the nearest is then computed from the difference itself,
    so that the distance of a copy is exactly 0. There must be at least one reference.
    """
    n = len(queries)
    best = torch.full((n,), math.inf, dtype=torch.float64, device=queries.device)
    index = torch.zeros(n, dtype=torch.int64, device=queries.device)
    distance = torch.empty_like(best)
    for first in range(0, n, _CHUNK):
        rows = slice(first, first + _CHUNK)
        q = queries[rows].flatten(1).double()
        for start in range(0, len(references), _CHUNK):
            r = references[start : start + _CHUNK].flatten(1).double()
            squared = q.square().sum(1, keepdim=True) + r.square().sum(1) - 2 * q @ r.T
            nearest, column = squared.min(1)
            closer = nearest < best[rows]
            best[rows] = torch.where(closer, nearest, best[rows])
            index[rows] = torch.where(closer, start + column, index[rows])
        difference = queries[rows].double() - references[index[rows]].double()
        distance[rows] = difference.flatten(1).square().mean(1).sqrt()
    return distance, index


def _distance_blocks(x: Vectors64, y: Vectors64) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the rows of ``x``, and their Euclidean distances from ``y``: (rows, m).

    From differences, not from |x|^2 + |y|^2 - 2 x y: the distance of a copy is exactly 0, and equal
    distances compare as equal.
    """
    rows = max(1, _BLOCK_ENTRIES // len(y))
    for first in range(0, len(x), rows):
        block = slice(first, min(first + rows, len(x)))
        yield block, torch.cdist(x[block], y, compute_mode="donot_use_mm_for_euclid_dist")


def _checked(x: Vectors, y: Vectors, least: int) -> tuple[Vectors64, Vectors64]:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or x.shape[1] == 0:
        raise ValueError(f"features of {[*x.shape]} and {[*y.shape]} do not compare")
    if min(len(x), len(y)) < least:
        raise ValueError(f"at least {least} vectors a set are needed, not {len(x)} and {len(y)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("features have NaN or infinite values")
    return x.double(), y.double()
