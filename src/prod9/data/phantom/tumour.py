"""The tumour of a phantom: a noisy ball of necrotic core, enhancing rim and oedema."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prod9.data.phantom.anatomy import Anatomy, Atlas, Canvas, rotation

BACKGROUND, CORE, OEDEMA, ENHANCING = 0, 1, 2, 3

_CORE_MM, _RIM_MM, _OEDEMA_MM = 9.0, 13.0, 24.0  # outer radii of a tumour of size 1


@dataclass(frozen=True)
class Tumour:
    """How much of each brain voxel, (N,) in [0, 1], is tumour; the three add up to at most 1."""

    core: Tensor
    rim: Tensor
    oedema: Tensor
    texture: Tensor
    """(N,): noise of variance 1."""
    labels: Tensor
    """uint8 (N,): what has the voxel's larger half."""


def draw_tumour(canvas: Canvas, atlas: Atlas, anatomy: Anatomy) -> Tumour:
    """Draw one tumour, or two of which the other is smaller, at random sites of the atlas."""
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
        turn = rotation(random.uniform(0, 180, 3))
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
    return Tumour(core, solid - core, (1 - solid) * swollen, noise(5.0), labels)
