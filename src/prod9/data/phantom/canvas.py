"""The grid that a phantom is drawn on, BraTS' own, and smooth noise on it."""

import math

import numpy as np
import torch
from torch import Tensor

_GRID_MM = (240, 240, 155)
REACH_MM = (96.0, 112.0, 78.0)
"""No brain lies further from the grid's centre, along each of the stored axes."""


class Canvas:
    """Where the voxels that may hold brain lie, and smooth noise on them.

    Args:
        voxel_mm: The voxels' side.
        random: What all of a case is drawn from, in order.
    """

    def __init__(self, voxel_mm: float, random: np.random.Generator) -> None:
        self.random = random
        self.shape = tuple(math.ceil(side / voxel_mm) for side in _GRID_MM)
        # mm from the grid's centre, along each of the stored axes (left, back, top).
        places = [
            (torch.arange(n, dtype=torch.float32) + 0.5) * voxel_mm - side / 2
            for n, side in zip(self.shape, _GRID_MM, strict=True)
        ]
        near = [(p.abs() <= r).nonzero()[:, 0] for p, r in zip(places, REACH_MM, strict=True)]
        self.box = tuple(slice(int(n[0]), int(n[-1]) + 1) for n in near)
        self.axes = [place[part] for place, part in zip(places, self.box, strict=True)]

    def noise(self, knot_mm: float) -> Tensor:
        """Draw Gaussian noise as smooth as knots ``knot_mm`` apart, of variance 1 everywhere."""
        weights = [
            _spline(axis, reach, knot_mm) for axis, reach in zip(self.axes, REACH_MM, strict=True)
        ]
        knots = self.random.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
        x, y, z = weights
        # From the smallest to the largest product: (k, k, k) -> (X, Y, Z).
        return torch.tensordot(x, y @ (torch.from_numpy(knots) @ z.T), dims=1)


def _spline(places: Tensor, reach: float, knot_mm: float) -> Tensor:
    """Return what each knot within ``reach`` gives to each place: (places, knots).

    Cubic B-splines, which leave no creases; each row's squares sum to 1.
    """
    count = 2 * math.ceil(reach / knot_mm + 1) + 1
    knots = (torch.arange(count) - count // 2) * knot_mm
    u = (places[:, None] - knots).abs() / knot_mm
    weights = torch.where(u < 1, 2 / 3 - u**2 + u**3 / 2, (2 - u).clamp(min=0) ** 3 / 6)
    return weights / weights.norm(dim=1, keepdim=True)
