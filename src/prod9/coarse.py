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

from prod9.config.sampler import SlidingWindowConfig
from prod9.shapes import Tokens, Volume
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer


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


def refined_tokens(
    tokenizer: Tokenizer,
    tokens: Tokens,
    factor: int,
    sides: Sequence[int],
    windows: SlidingWindowConfig,
) -> Tokens:
    """Return what coarse tokens show as tokens of the fine grid.

    Args:
        tokenizer: of both grids.
        tokens: (B, *coarse grid).
        factor: coarse voxels are so many times larger.
        sides: voxels of the fine volume.
        windows: how volumes are cut.

    Returns:
        (B, *grid), on the CPU.
    """
    small = coarse_sides(sides, factor)
    shown = (decode(tokenizer, one[None], small, windows) for one in tokens)
    return torch.cat([encode(tokenizer, refined(each, factor, sides), windows) for each in shown])
