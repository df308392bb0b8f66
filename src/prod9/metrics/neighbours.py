"""The nearest reference of each volume, by full search."""

import math

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

_CHUNK = 64
"""Volumes of each side that are compared at once."""


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
