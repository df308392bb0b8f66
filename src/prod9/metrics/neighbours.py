"""Nearest neighbours in voxel space: they tell a drawn volume from a copied one."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Neighbours:
    """For each query its nearest reference.

    Attributes:
        distance: root mean squared difference of their voxels, fp64, (n,).
        index: which reference, int64, (n,).
    """

    distance: Float[Tensor, " n"]
    index: Int64[Tensor, " n"]


def nearest_neighbours(
    queries: Float[Tensor, "n *voxels"],
    references: Float[Tensor, "m *voxels"],
    *,
    exclude_self: bool = False,
    chunk: int = 64,
) -> Neighbours:
    """Nearest reference of each query by root mean squared difference, exhaustively.

    Candidates are ranked by |q|^2 + |r|^2 - 2 q r in fp64; the distance of the winner is then taken
    from the difference itself, so that a copy is at exactly 0.

    Args:
        queries: (n, *voxels), any shape of voxels.
        references: (m, *voxels).
        exclude_self: queries and references are the same volumes in the same order, and none is
            its own neighbour.
        chunk: volumes of each side held in fp64 at once.

    Raises:
        ValueError: volumes of different sizes, no references, or ``exclude_self`` with sets of
            different lengths or of a single volume.
    """
    n, m = len(queries), len(references)
    if queries.shape[1:] != references.shape[1:]:
        raise ValueError(f"sizes differ: {[*queries.shape[1:]]} and {[*references.shape[1:]]}")
    if m == 0 or (exclude_self and (n != m or m < 2)):
        raise ValueError(f"no neighbours to choose from: {n} queries, {m} references")
    best = torch.full((n,), math.inf, dtype=torch.float64, device=queries.device)
    index = torch.zeros(n, dtype=torch.int64, device=queries.device)
    for first in range(0, n, chunk):
        q = queries[first : first + chunk].flatten(1).double()
        rows = torch.arange(first, first + len(q), device=queries.device)
        for start in range(0, m, chunk):
            r = references[start : start + chunk].flatten(1).double()
            squared = q.square().sum(1, keepdim=True) + r.square().sum(1) - 2 * q @ r.T
            if exclude_self:
                columns = torch.arange(start, start + len(r), device=queries.device)
                squared = squared.masked_fill(rows[:, None] == columns, math.inf)
            nearest, column = squared.min(1)
            closer = nearest < best[rows]
            best[rows] = torch.where(closer, nearest, best[rows])
            index[rows] = torch.where(closer, start + column, index[rows])
    distance = torch.empty_like(best)
    for first in range(0, n, chunk):
        part = slice(first, first + chunk)
        difference = queries[part].double() - references[index[part]].double()
        distance[part] = difference.flatten(1).square().mean(1).sqrt()
    return Neighbours(distance=distance, index=index)
