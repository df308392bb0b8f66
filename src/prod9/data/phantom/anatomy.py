"""The anatomy of a phantom: the MNI152 template, moved, scaled and bent at random."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from nibabel import nifti1
from torch import Tensor

from prod9.data.brain_regions import template_path

_GRID_MM = (240, 240, 155)
REACH_MM = (96.0, 112.0, 78.0)
"""No brain lies further from the grid's centre, along each of the stored axes."""
_BRAIN_CENTRE_MM = torch.tensor([0.0, -17.0, 5.0])  # of the template's brain, in MNI coordinates
_HEAD_ROOM_MM = 6.0


class Canvas:
    """Where the voxels that may hold brain lie, and smooth noise on them.

    Args:
        voxel_mm: the voxels' side.
        random: source of everything random in a case, used in order.
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


@dataclass(frozen=True)
class Atlas:
    """The template's brain."""

    maps: Tensor
    """(5, X, Y, Z), the brain's box, RAS, 1 mm: brain (0 or 1), T1, white, grey, white blurred."""
    origin_mm: Tensor
    """MNI coordinates of the box's first voxel."""
    sites_mm: np.ndarray
    """(N, 3): where a tumour may begin, deep in white matter."""
    depths_mm: np.ndarray
    """(N,): how far each site lies below the brain's surface."""


@lru_cache(maxsize=1)
def read_atlas() -> Atlas:
    """Read the ICBM152 2009a template inside nilearn's wheel; once in a process.

    Raises:
        Prod9Error: it is missing.
    """
    images = [nifti1.load(template_path(name)) for name in ("t1", "wm", "gm")]
    t1, white, grey = (
        torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32)) / 255 for image in images
    )
    # The template's outline has crumbs one voxel thick: what lies in its majority's reach remains.
    full = (t1 > 0).float()
    brain = (F.avg_pool3d(full[None, None], 5, stride=1, padding=2)[0, 0] > 0.5) & (t1 > 0)
    low, high = brain.nonzero().amin(0), brain.nonzero().amax(0) + 1
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    t1, white, grey, brain = (volume[box] for volume in (t1, white, grey, brain.float()))
    blurred = white[None, None]
    for _ in range(2):  # two boxes of 5 mm: nearly a Gaussian, 2 mm wide
        blurred = F.avg_pool3d(blurred, 5, stride=1, padding=2)
    maps = torch.stack([brain, t1, white * brain, grey * brain, blurred[0, 0] * brain])
    affine = torch.from_numpy(np.asarray(images[0].affine, dtype=np.float32))
    origin = affine[:3, 3] + low

    # Layer by layer, 3 mm each, the brain is peeled: the number of layers left is the depth.
    coarse, wide = maps[0, ::3, ::3, ::3], maps[4, ::3, ::3, ::3]
    depth, rest = torch.zeros_like(coarse), coarse[None, None]
    while rest.any():
        depth += 3 * rest[0, 0]
        rest = -F.max_pool3d(F.pad(-rest, [1] * 6), 3, stride=1)
    sites = ((wide > 0.6) & (depth >= 12)).nonzero()
    places = origin + 3 * sites
    # Of the cerebrum, and beside the midline: there most gliomas are.
    kept = (places[:, 0].abs() > 14) & (places[:, 2] > -12)
    depths = depth[tuple(sites[kept].T)]
    return Atlas(maps, origin, places[kept].numpy(), depths.numpy())


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
