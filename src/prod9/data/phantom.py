"""A BraTS-like case, drawn: the MNI152 brain, bent and re-coloured, with a tumour.

The anatomy is the ICBM152 2009a template inside nilearn's wheel, moved, scaled and bent at random;
the contrasts T1, T1ce, T2 and FLAIR are weighted sums of its tissue maps, and the tumour is a noisy
ball of necrotic core, enhancing rim and oedema. Grid, orientation and intensities are as BraTS has
them. It shows *one average anatomy*: enough to learn and test with, and nothing about patients.
"""

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from nibabel import nifti1
from torch import Tensor

from prod9.data.brain_regions import template_path
from prod9.data.brats_layouts import MODALITIES
from prod9.errors import UserError

BACKGROUND, CORE, OEDEMA, ENHANCING = 0, 1, 2, 3

_GRID_MM = (240, 240, 155)
_REACH_MM = (96.0, 112.0, 78.0)  # no brain lies further from the grid's centre
_BRAIN_CENTRE_MM = torch.tensor([0.0, -17.0, 5.0])  # of the template's brain, in MNI coordinates
_HEAD_ROOM_MM = 6.0

# What white and grey matter and fluid add to each contrast, and what the tumour's parts have in it.
# T1 comes from the template, in whose units the tumour's figures are too.
_TISSUES = {"T2": (0.28, 0.45, 0.95), "FLAIR": (0.42, 0.55, 0.08)}
_T1CE_OF_T1 = 0.95
_CORE = {"T1": 0.25, "T1ce": 0.20, "T2": 0.80, "FLAIR": 0.45}
_RIM = {"T1": 0.50, "T1ce": 1.00, "T2": 0.60, "FLAIR": 0.70}
_OEDEMA = {"T1": 0.50, "T1ce": 0.48, "T2": 0.75, "FLAIR": 0.95}
_CORE_MM, _RIM_MM, _OEDEMA_MM = 9.0, 13.0, 24.0  # outer radii of a tumour of size 1


@dataclass(frozen=True)
class PhantomCase:
    """Four co-registered, skull-stripped images and what is tumour in them."""

    images: Mapping[str, np.ndarray]
    """By ``MODALITIES``: int16, (240, 240, 155) at 1 mm, axes to the left, back and top (LPS);
    arbitrary units, at least 1 in the brain and 0 outside."""
    segmentation: np.ndarray
    """uint8, same shape: ``BACKGROUND``, ``CORE``, ``OEDEMA``, ``ENHANCING``."""
    affine: np.ndarray
    """float64 (4, 4): voxel to mm."""


@dataclass(frozen=True)
class _Atlas:
    maps: Tensor
    """(5, X, Y, Z), the brain's box, RAS, 1 mm: brain (0 or 1), T1, white, grey, white blurred."""
    origin_mm: Tensor
    """MNI coordinates of the box's first voxel."""
    sites_mm: np.ndarray
    """(N, 3): where a tumour may begin, deep in white matter."""
    depths_mm: np.ndarray
    """(N,): how far each site lies below the brain's surface."""


@contextmanager
def _one_thread() -> Generator[None]:
    """Keep torch from splitting an operation: how it is split decides its last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _atlas() -> _Atlas:
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
    return _Atlas(maps, origin, places[kept].numpy(), depths.numpy())


def _rotation(degrees: np.ndarray) -> Tensor:
    """Return the turn about x, then y, then z: (3, 3)."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return torch.from_numpy(matrix).float()


class _Canvas:
    """Where the voxels that may hold brain lie, and smooth noise on them."""

    def __init__(self, voxel_mm: float, random: np.random.Generator) -> None:
        self.random = random
        self.shape = tuple(math.ceil(side / voxel_mm) for side in _GRID_MM)
        # mm from the grid's centre, along each of the stored axes (left, back, top).
        places = [
            (torch.arange(n, dtype=torch.float32) + 0.5) * voxel_mm - side / 2
            for n, side in zip(self.shape, _GRID_MM, strict=True)
        ]
        near = [(p.abs() <= r).nonzero()[:, 0] for p, r in zip(places, _REACH_MM, strict=True)]
        self.box = tuple(slice(int(n[0]), int(n[-1]) + 1) for n in near)
        self.axes = [place[part] for place, part in zip(places, self.box, strict=True)]

    def noise(self, knot_mm: float) -> Tensor:
        """Draw Gaussian noise as smooth as knots ``knot_mm`` apart, of variance 1 everywhere."""
        weights = [
            _spline(axis, reach, knot_mm) for axis, reach in zip(self.axes, _REACH_MM, strict=True)
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
class _Anatomy:
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


def _draw_anatomy(canvas: _Canvas, atlas: _Atlas) -> _Anatomy:
    random = canvas.random
    turn = _rotation(4.0 * random.standard_normal(3))
    scale = torch.from_numpy(0.935 + 0.025 * random.standard_normal(3)).float()
    shift = torch.from_numpy(2.5 * random.standard_normal(3)).float()
    # Below, the template ends in a flat cut; above, it must not.
    surface = 4.0 * atlas.maps[0, ::4, ::4, ::4].nonzero() + atlas.origin_mm
    top = ((surface - _BRAIN_CENTRE_MM) * scale @ turn[2]).max()
    shift[2] = _REACH_MM[2] - _HEAD_ROOM_MM - random.uniform(0.0, 4.0) - top

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
    return _Anatomy(brain, mm[:, brain], t1, white, grey, fluid, around)


@dataclass(frozen=True)
class _Tumour:
    """How much of each brain voxel, (N,) in [0, 1], is tumour; the three add up to at most 1."""

    core: Tensor
    rim: Tensor
    oedema: Tensor
    texture: Tensor
    """(N,): noise of variance 1."""
    labels: Tensor
    """uint8 (N,): what has the voxel's larger half."""


def _draw_tumour(canvas: _Canvas, atlas: _Atlas, anatomy: _Anatomy) -> _Tumour:
    random = canvas.random

    def noise(knot_mm: float) -> Tensor:
        return canvas.noise(knot_mm)[anatomy.brain]

    size = float(np.exp(random.uniform(math.log(0.6), math.log(1.5))))
    sizes = [size, size * random.uniform(0.5, 0.8)][: 1 + int(random.random() < 0.25)]
    # The radius, in a tumour of size 1; where there are two, that of the nearer one.
    radius, mm_per_unit = torch.full_like(anatomy.t1, math.inf), torch.ones_like(anatomy.t1)
    for size in sizes:
        deep = atlas.depths_mm >= min(_RIM_MM * size + 3, float(atlas.depths_mm.max()))
        site = torch.from_numpy(random.choice(atlas.sites_mm[deep]))
        stretch = torch.from_numpy(np.exp(0.15 * random.standard_normal(3))).float()
        turn = _rotation(random.uniform(0, 180, 3))
        own = (turn @ (anatomy.mm - site[:, None]) * stretch[:, None]).norm(dim=0)
        # The falx, between the hemispheres, is a barrier: beyond it each mm counts for three.
        own = (own + 2 * (-site[0].sign() * anatomy.mm[0]).clamp(min=0)) / size
        nearer = own < radius
        radius, mm_per_unit = (
            torch.where(nearer, own, radius),
            torch.where(nearer, size, mm_per_unit),
        )
    radius = radius + 1.7 * noise(14.0) + 0.8 * noise(7.0)

    def within(limit: Tensor | float, edge_mm: float = 1.0) -> Tensor:  # from 10 to 90 %
        return torch.sigmoid((limit - radius) * mm_per_unit * (4.4 / edge_mm))

    thickness = (_RIM_MM - _CORE_MM + 1.4 * noise(10.0)).clamp(min=1.5)
    core, solid = within(_RIM_MM - thickness), within(_RIM_MM)
    # Oedema spreads along white matter, stops at grey and leaves fluid as it is.
    spread = (2.2 * anatomy.white_around - 0.5).clamp(0, 1) * (1 - anatomy.fluid)
    swollen = within(_OEDEMA_MM + 3.5 * noise(20.0) + 1.5 * noise(9.0), 3.0) * spread
    labels = torch.full(radius.shape, BACKGROUND, dtype=torch.uint8)
    for part, label in ((swollen, OEDEMA), (solid, ENHANCING), (core, CORE)):
        labels[part > 0.5] = label
    return _Tumour(core, solid - core, (1 - solid) * swollen, noise(5.0), labels)


def _contrasts(canvas: _Canvas, anatomy: _Anatomy, tumour: _Tumour) -> dict[str, Tensor]:
    """Return what a scanner without faults would show, by modality: (N,)."""
    random = canvas.random

    def varied(value: float) -> float:
        return value * (1 + random.uniform(-0.07, 0.07))  # bounded: the order of tissues stays

    white, grey, fluid = anatomy.white, anatomy.grey, anatomy.fluid
    healthy = 1 - tumour.core - tumour.rim - tumour.oedema
    result: dict[str, Tensor] = {}
    for name in MODALITIES:
        if name in _TISSUES:
            w, g, f = (varied(value) for value in _TISSUES[name])
            tissue = w * white + g * grey + f * fluid
        else:
            w, g, f = (varied(_T1CE_OF_T1 if name == "T1ce" else 1.0) for _ in range(3))
            tissue = (w * white + g * grey + f * fluid) * anatomy.t1
        sick = (
            varied(_CORE[name]) * tumour.core
            + varied(_RIM[name]) * tumour.rim
            + varied(_OEDEMA[name]) * tumour.oedema
        )
        result[name] = healthy * tissue + sick * (1 + 0.07 * tumour.texture)
    return result


def _scanned(canvas: _Canvas, brain: Tensor, ideal: Tensor, white: float) -> Tensor:
    """Return one image as a scanner gives it, int16 (N,): shaded, curved, noisy, in its own units.

    Args:
        canvas: Where the voxels lie.
        brain: Which of them are brain.
        ideal: (N,) in [0, 1].
        white: What white matter has in ``ideal``; the noise is a share of it.

    """
    random = canvas.random
    image = ideal * torch.exp(0.06 * canvas.noise(80.0)[brain])
    image = image.clamp(0, 1.2) ** math.exp(0.08 * random.standard_normal())
    # Magnitudes of complex numbers with noise in both parts: Rice's distribution. It has draws of
    # its own: their number depends on the voxels' side, and nothing else may.
    own = np.random.default_rng(random.integers(1 << 62))
    real, imaginary = torch.from_numpy(
        0.015 * white * own.standard_normal((2, len(image)), dtype=np.float32)
    )
    image = torch.hypot(image + real, imaginary)
    mean = math.exp(random.uniform(math.log(200), math.log(900)))
    return (image * (mean / image.mean())).round().clamp(1, 32767).to(torch.int16)


def draw_case(seed: int, index: int, *, voxel_mm: float = 1.0) -> PhantomCase:
    """Draw case ``index`` of the cohort ``seed``: the same one each time.

    Args:
        seed: Of the cohort, at least 0.
        index: Of the case, at least 0.
        voxel_mm: The voxels' side, from 0.5 to 8; the anatomy and the tumour stay as they are and
            only the noise is another. At 4, the grid is 60 x 60 x 39.

    Raises:
        UserError: a number is out of its range, or the template is missing.

    """
    if seed < 0 or index < 0:
        raise UserError(f"a phantom's seed and index are at least 0, not {seed} and {index}.")
    if not 0.5 <= voxel_mm <= 8:
        raise UserError(f"a phantom's voxels have a side of 0.5 to 8 mm, not {voxel_mm}.")
    with _one_thread():
        # The order of the draws is part of the cohort.
        canvas, atlas = _Canvas(voxel_mm, np.random.default_rng([seed, index])), _atlas()
        anatomy = _draw_anatomy(canvas, atlas)
        tumour = _draw_tumour(canvas, atlas, anatomy)
        images: dict[str, np.ndarray] = {}
        for name, ideal in _contrasts(canvas, anatomy, tumour).items():
            white = float(ideal[anatomy.white > 0.9].median())
            image = _scanned(canvas, anatomy.brain, ideal, white)
            images[name] = _on_grid(canvas, anatomy.brain, image)
        segmentation = _on_grid(canvas, anatomy.brain, tumour.labels)
    # Stored axes run to the left and back: world coordinates fall as indices rise.
    affine = np.diag([-voxel_mm, -voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = np.array([0.0, 239.0, 0.0]) + (voxel_mm - 1) / 2 * np.array([-1, -1, 1])
    return PhantomCase(images, segmentation, affine)


def _on_grid(canvas: _Canvas, brain: Tensor, values: Tensor) -> np.ndarray:
    grid = torch.zeros(canvas.shape, dtype=values.dtype)
    grid[canvas.box][brain] = values
    return grid.numpy()
