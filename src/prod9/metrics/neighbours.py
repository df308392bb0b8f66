"""Nearest neighbours by voxels or features: they tell a new volume from a copied one."""

import math

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor


def nearest_neighbours(
    queries: Float[Tensor, "n *voxels"], references: Float[Tensor, "m *voxels"], chunk: int = 64
) -> tuple[Float64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Return for each query the distance and the index of its nearest reference, by full search.

    Distances are root mean squared differences, fp64. Candidates are ranked by
    |q|^2 + |r|^2 - 2 q r; the distance of the nearest is then computed from the difference itself,
    so that the distance of a copy is exactly 0.

    Args:
        queries: (n, *voxels), any shape of voxels.
        references: (m, *voxels).
        chunk: volumes of each side held in fp64 at once.

    Raises:
        ValueError: volumes of different sizes, or no references.
    """
    n, m = len(queries), len(references)
    if queries.shape[1:] != references.shape[1:]:
        raise ValueError(f"sizes differ: {[*queries.shape[1:]]} and {[*references.shape[1:]]}")
    if m == 0:
        raise ValueError("there are no references")
    best = torch.full((n,), math.inf, dtype=torch.float64, device=queries.device)
    index = torch.zeros(n, dtype=torch.int64, device=queries.device)
    for first in range(0, n, chunk):
        q = queries[first : first + chunk].flatten(1).double()
        rows = slice(first, first + len(q))
        for start in range(0, m, chunk):
            r = references[start : start + chunk].flatten(1).double()
            squared = q.square().sum(1, keepdim=True) + r.square().sum(1) - 2 * q @ r.T
            nearest, column = squared.min(1)
            closer = nearest < best[rows]
            best[rows] = torch.where(closer, nearest, best[rows])
            index[rows] = torch.where(closer, start + column, index[rows])
    distance = torch.empty_like(best)
    for first in range(0, n, chunk):
        part = slice(first, first + chunk)
        difference = queries[part].double() - references[index[part]].double()
        distance[part] = difference.flatten(1).square().mean(1).sqrt()
    return distance, index
