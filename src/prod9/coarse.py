"""Coarse to fine: a volume with fewer, larger voxels, and its tokens as a source of the fine ones.

A window of a large volume shows too little to know where it is in the anatomy. So the whole volume
is sampled first on a grid that is ``factor`` times coarser, which the transformer sees at once, and
the windows are sampled given that (cascades: Ho et al. 2021, arXiv 2106.15282). Both grids have the
same tokenizer and transformer.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from prod9.config.sampler import SlidingWindowConfig
from prod9.shapes import Tokens, Volume
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer

_NEARLY_NOTHING = 0.02


def coarse_sides(sides: Sequence[int], factor: int) -> tuple[int, int, int]:
    """Return the sides of a volume of ``sides`` voxels after :func:`coarsened`."""
    d, h, w = (math.ceil(side / factor) for side in sides)
    return d, h, w


def coarsened(volume: Volume, factor: int) -> Volume:
    """Return the means of blocks of ``factor`` voxels a side, fewer at the end of an axis."""
    return F.avg_pool3d(volume, factor, ceil_mode=True, count_include_pad=False)


def refined(volume: Volume, factor: int, sides: Sequence[int]) -> Volume:
    """Return a coarse volume on the grid of ``sides`` voxels that it was made from, linearly."""
    d, h, w = sides
    larger = F.interpolate(volume, scale_factor=factor, mode="trilinear", align_corners=False)
    return larger[..., :d, :h, :w]


def coarse_tokens(
    tokenizer: Tokenizer, volume: Volume, factor: int, windows: SlidingWindowConfig
) -> Tokens:
    """Volume (1, 1, D, H, W) in [0, 1] -> tokens (1, *coarse grid), on the CPU."""
    return encode(tokenizer, coarsened(volume, factor), windows)


def shown_by(
    tokenizer: Tokenizer,
    tokens: Tokens,
    factor: int,
    sides: Sequence[int],
    windows: SlidingWindowConfig,
) -> Volume:
    """Return what coarse tokens (B, *coarse grid) show, on the grid of ``sides`` voxels.

    What is nearly 0 becomes 0: decoded background is not, and its tokens would be noise.
    """
    small = coarse_sides(sides, factor)
    volumes = torch.cat([decode(tokenizer, one[None], small, windows) for one in tokens])
    return refined(volumes * (volumes > _NEARLY_NOTHING), factor, sides)


def source_of(tokenizer: Tokenizer, shown: Volume, windows: SlidingWindowConfig) -> Tokens:
    """Return what :func:`shown_by` returned as tokens (B, *grid), on the CPU."""
    return torch.cat([encode(tokenizer, one[None], windows) for one in shown])


def empty_cells(tokenizer: Tokenizer, volumes: Volume) -> Bool[Tensor, "b *grid"]:
    """Return the cells where neither they nor their neighbours hold a voxel above 0."""
    cells, _ = _occupied(tokenizer, volumes)
    return F.max_pool3d(cells, 3, stride=1, padding=1)[:, 0] == 0


def whole_cells(tokenizer: Tokenizer, volumes: Volume) -> Bool[Tensor, "b 1 d h w"]:
    """Return the voxels of the cells that hold a voxel above 0."""
    cells, before = _occupied(tokenizer, volumes)
    stride, sides = tokenizer.autoencoder.stride, volumes.shape[2:]
    voxels = F.interpolate(cells, scale_factor=stride, mode="nearest") > 0
    d, h, w = (slice(start, start + n) for start, n in zip(before, sides, strict=True))
    return voxels[:, :, d, h, w]


def _occupied(tokenizer: Tokenizer, volumes: Volume) -> tuple[Tensor, list[int]]:
    """Return 1 for each cell (B, 1, *grid) with a voxel above 0, and the padding before an axis."""
    stride, sides = tokenizer.autoencoder.stride, volumes.shape[2:]
    grid = tokenizer.grid(sides)
    missing = [cells * stride - side for cells, side in zip(grid, sides, strict=True)]
    # As the tokenizer pads: shared by both faces.
    pads = [p for m in reversed(missing) for p in (m // 2, m - m // 2)]
    return F.max_pool3d(F.pad((volumes > 0).float(), pads), stride), [m // 2 for m in missing]
