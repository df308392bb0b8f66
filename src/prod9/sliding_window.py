"""Volumes of any size through a tokenizer that was trained on crops.

Latents of overlapping windows are blended *before* quantisation and quantised once: blending codes
would leave half of them off the grid. Windows start on multiples of the stride, so that each covers
whole cells of the token grid.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.config.sampler import SlidingWindowConfig
from prod9.shapes import Latent, Tokens, Volume
from prod9.tokenizer import CHANNELS, Tokenizer


@dataclass(frozen=True)
class Windows:
    """Windows of ``roi`` cells over a grid of ``sides`` cells; both in the same unit."""

    sides: tuple[int, ...]
    roi: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    @classmethod
    def over(cls, sides: Sequence[int], roi: Sequence[int], overlap: float) -> "Windows":
        """Spread windows that share at least ``overlap`` of a side with the next."""
        roi = tuple(min(r, s) for r, s in zip(roi, sides, strict=True))
        per_axis: list[list[int]] = []
        for side, r in zip(sides, roi, strict=True):
            step = max(1, int(r * (1 - overlap)))
            last = side - r
            per_axis.append(sorted({*range(0, last, step), last}))
        return cls(tuple(sides), roi, tuple(itertools.product(*per_axis)))


def _importance(roi: Sequence[int], mode: str) -> Tensor:
    """Weight of each cell of a window: 1, or a Gaussian with sigma = an eighth of the side."""
    weight = torch.ones(())
    for side in roi:
        axis = torch.ones(side)
        if mode == "gaussian":
            centred = torch.arange(side) - (side - 1) / 2
            axis = torch.exp(-0.5 * (centred / (side / 8)) ** 2).clamp_min(1e-3)
        weight = weight[..., None] * axis
    return weight


def _blend(
    windows: Windows,
    channels: int,
    scale: int,
    config: SlidingWindowConfig,
    run: Callable[[list[tuple[slice, ...]]], Tensor],
) -> Tensor:
    """Weighted mean of the windows' outputs, each ``scale`` times finer than its window.

    Batches of windows go through ``run``; the sums stay on the CPU.
    """
    fine = [scale * side for side in windows.sides]
    weight = _importance([scale * side for side in windows.roi], config.mode)
    total, norm = torch.zeros(channels, *fine), torch.zeros(fine)
    for group in range(0, len(windows.starts), config.sw_batch_size):
        starts = windows.starts[group : group + config.sw_batch_size]
        cells = [
            tuple(slice(s, s + r) for s, r in zip(start, windows.roi, strict=True))
            for start in starts
        ]
        outputs = run(cells).float().cpu()
        for cell, output in zip(cells, outputs, strict=True):
            place = tuple(slice(scale * c.start, scale * c.stop) for c in cell)
            total[(slice(None), *place)] += weight * output
            norm[place] += weight
    return total / norm


def _roi_cells(tokenizer: Tokenizer, config: SlidingWindowConfig) -> list[int]:
    return [max(1, side // tokenizer.autoencoder.stride) for side in config.roi_size]


@torch.no_grad()
def encode_latent(tokenizer: Tokenizer, volume: Volume, config: SlidingWindowConfig) -> Latent:
    """Volume (1, C, D, H, W) in [0, 1], any size -> blended raw latent (1, l, *grid)."""
    stride = tokenizer.autoencoder.stride
    grid = tokenizer.grid(volume.shape[2:])
    missing = [cells * stride - side for cells, side in zip(grid, volume.shape[2:], strict=True)]
    # The same padding as the autoencoder's own, so that one window gives what no window gives.
    pads = [p for m in reversed(missing) for p in (m // 2, m - m // 2)]
    padded = F.pad(volume, pads, mode="replicate") if any(missing) else volume
    windows = Windows.over(grid, _roi_cells(tokenizer, config), config.overlap)
    device = next(tokenizer.parameters()).device

    def run(cells: list[tuple[slice, ...]]) -> Tensor:
        crops = [
            padded[
                (
                    slice(None),
                    slice(None),
                    *(slice(stride * c.start, stride * c.stop) for c in cell),
                )
            ]
            for cell in cells
        ]
        return tokenizer.autoencoder.encode(torch.cat(crops).to(device))

    return _blend(windows, len(tokenizer.fsq.levels), 1, config, run)[None]


def encode(tokenizer: Tokenizer, volume: Volume, config: SlidingWindowConfig) -> Tokens:
    """Volume (1, C, D, H, W) in [0, 1], any size -> tokens (1, *grid), on the CPU."""
    latent = encode_latent(tokenizer, volume, config).to(next(tokenizer.parameters()).device)
    return tokenizer.fsq.codes_to_indices(tokenizer.fsq.quantize(latent)).cpu()


@torch.no_grad()
def decode(
    tokenizer: Tokenizer, tokens: Tokens, sides: Sequence[int], config: SlidingWindowConfig
) -> Volume:
    """Tokens (1, *grid) -> volume (1, C, D, H, W) of ``sides`` voxels in [0, 1], on the CPU."""
    stride = tokenizer.autoencoder.stride
    windows = Windows.over(tokens.shape[1:], _roi_cells(tokenizer, config), config.overlap)
    device = next(tokenizer.parameters()).device

    def run(cells: list[tuple[slice, ...]]) -> Tensor:
        crops = torch.cat([tokens[(slice(None), *cell)] for cell in cells]).to(device)
        return tokenizer.decode(crops)

    volume = _blend(windows, CHANNELS, stride, config, run)[None]
    starts = [(stride * g - s) // 2 for g, s in zip(tokens.shape[1:], sides, strict=True)]
    (d, h, w), (sd, sh, sw) = starts, sides
    return volume[:, :, d : d + sd, h : h + sh, w : w + sw]
