"""The anatomy of a phantom: the template, moved, scaled and bent at random."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.data.phantom.atlas import Atlas
from prod9.data.phantom.canvas import REACH_MM, Canvas

_BRAIN_CENTRE_MM = torch.tensor([0.0, -17.0, 5.0])  # of the template's brain, in MNI coordinates
_HEAD_ROOM_MM = 6.0


@dataclass(frozen=True)
class Anatomy:
    """The bent template, at the N voxels of the canvas that are brain."""

    brain: Tensor
    """bool, the canvas's box: where these voxels are."""
    mm: Tensor
    """(3, N): the voxels' places in the template, MNI coordinates."""
    t1: Tensor
    white: Tensor
    grey: Tensor
    fluid: Tensor
    white_around: Tensor
    """(N,) each: the template's T1 and shares of tissue in [0, 1]; white matter, blurred."""


def rotation(degrees: np.ndarray) -> Tensor:
    """Return the turn about x, then y, then z: (3, 3)."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return torch.from_numpy(matrix).float()


def draw_anatomy(canvas: Canvas, atlas: Atlas) -> Anatomy:
    """Move, turn, scale and bend the template at random, and read it at the canvas's voxels."""
    random = canvas.random
    turn = rotation(4.0 * random.standard_normal(3))
    scale = torch.from_numpy(0.935 + 0.025 * random.standard_normal(3)).float()
    shift = torch.from_numpy(2.5 * random.standard_normal(3)).float()
    # Below, the template ends in a flat cut; above, it must not.
    surface = 4.0 * atlas.maps[0, ::4, ::4, ::4].nonzero() + atlas.origin_mm
    top = ((surface - _BRAIN_CENTRE_MM) * scale @ turn[2]).max()
    shift[2] = REACH_MM[2] - _HEAD_ROOM_MM - random.uniform(0.0, 4.0) - top

    # mm = centre + turn^-1 (place - shift) / scale + bend; the stored axes run left, back and top.
    linear = turn.T / scale[:, None]
    start = _BRAIN_CENTRE_MM - linear @ shift
    linear = linear * torch.tensor([-1.0, -1.0, 1.0])
    left, back, up = canvas.axes
    mm = torch.stack([2.3 * canvas.noise(46.0) for _ in range(3)])
    for axis in range(3):
        mm[axis] += (linear[axis, 0] * left + start[axis])[:, None, None]
        mm[axis] += (linear[axis, 1] * back)[:, None] + linear[axis, 2] * up

    # grid_sample counts from -1 to 1 and wants the last axis first.
    sides = torch.tensor(atlas.maps.shape[1:])
    grid = torch.empty(*mm.shape[1:], 3)
    for axis in range(3):
        unit = 2.0 / float(sides[axis] - 1)
        torch.sub(mm[axis], atlas.origin_mm[axis] + 1 / unit, out=grid[..., 2 - axis])
        grid[..., 2 - axis] *= unit
    maps = F.grid_sample(atlas.maps[None], grid[None], align_corners=True)[0]
    brain = maps[0] > 0.5
    inside, t1, white, grey, around = maps[:, brain]
    # At the edge a part of each voxel lies outside: what is read there is the brain's part alone.
    t1, white, grey, around = t1 / inside, white / inside, grey / inside, around / inside
    fluid = (1 - white - grey).clamp(min=0)
    return Anatomy(brain, mm[:, brain], t1, white, grey, fluid, around)
