"""Volumes of any size through a tokenizer that was trained on crops, in overlapping windows.

Latents of the windows are blended *before* quantisation and quantised once: blending codes would
leave half of them off the grid. Windows start on multiples of the stride, so that each covers
whole cells of the token grid. Windows that hold one value everywhere, such as a scan's background,
go through the network once for each value.
"""

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.config.sampler import SlidingWindowConfig
from prod9.shapes import Latent, Tokens, Volume
from prod9.tokenizer import CHANNELS, Tokenizer

Start: TypeAlias = tuple[int, ...]
"""First cell of a window along each axis."""


@dataclass(frozen=True)
class Windows:
    """Windows of ``roi`` cells over a grid of ``sides`` cells; both in the same unit."""

    sides: tuple[int, ...]
    roi: tuple[int, ...]
    starts: tuple[Start, ...]
    """All combinations of the starts along each axis."""

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

    def cells(self, start: Start) -> tuple[slice, ...]:
        """Return the cells of the window that begins at ``start``."""
        return tuple(slice(s, s + r) for s, r in zip(start, self.roi, strict=True))


def axis_shares(windows: Windows, scale: int, mode: str) -> list[dict[int, Tensor]]:
    """Return the weight of each window in the ``scale`` fine cells per cell that it covers.

    A window's weight is a product of one weight per axis, and the starts are all combinations of
    the starts per axis. So the weights that meet in a cell sum to a product of three sums, each
    along one axis, and can be divided by them axis by axis.

    Args:
        windows: over the coarse grid.
        scale: fine cells per coarse cell and axis.
        mode: ``constant``, or ``gaussian`` with sigma = an eighth of the window's side.

    Returns:
        For each axis, start -> float32 (scale * roi,) in (0, 1]; in every fine cell the weights of
        the windows that cover it sum to 1.
    """
    shares: list[dict[int, Tensor]] = []
    for axis, (side, roi) in enumerate(zip(windows.sides, windows.roi, strict=True)):
        profile = torch.ones(scale * roi, dtype=torch.float64)
        if mode == "gaussian":
            centred = torch.arange(scale * roi, dtype=torch.float64) - (scale * roi - 1) / 2
            profile = torch.exp(-0.5 * (centred / (scale * roi / 8)) ** 2).clamp_min(1e-3)
        norm = torch.zeros(scale * side, dtype=torch.float64)
        starts = sorted({start[axis] for start in windows.starts})
        covered = {s: norm[scale * s : scale * (s + roi)] for s in starts}
        for part in covered.values():
            part += profile
        shares.append({s: (profile / part).float() for s, part in covered.items()})
    return shares


def replicated_crop(volume: Tensor, starts: Sequence[int], sides: Sequence[int]) -> Tensor:
    """Cut ``sides`` voxels out of (B, C, D, H, W), from ``starts``, which may lie outside.

    What lies outside repeats the border. The crop must hold at least one voxel of the volume.
    """
    stops = [s + side for s, side in zip(starts, sides, strict=True)]
    pads = [
        (max(0, -a), max(0, b - n)) for a, b, n in zip(starts, stops, volume.shape[2:], strict=True)
    ]
    (d, h, w) = (slice(max(0, a), b) for a, b in zip(starts, stops, strict=True))
    crop = volume[:, :, d, h, w]
    if not any(before or after for before, after in pads):
        return crop
    return F.pad(crop, [p for pair in reversed(pads) for p in pair], mode="replicate")


def uniform(window: Tensor) -> Hashable:
    """Return what (B, C, D, H, W) or (B, D, H, W) holds everywhere, one number a channel."""
    corner = window[..., :1, :1, :1]
    return tuple(corner.flatten().tolist()) if bool((window == corner).all()) else None


def blend(
    windows: Windows,
    cut: Callable[[Start], Tensor],
    network: Callable[[Tensor], Tensor],
    config: SlidingWindowConfig,
    *,
    channels: int,
    sides: Sequence[int],
    scale: int,
) -> Tensor:
    """Return the weighted mean of the windows' outputs; needs memory for one batch of windows.

    Args:
        windows: over the coarse grid.
        cut: start of a window -> its content (1, ...).
        network: contents of some windows -> their outputs (n, channels, *(scale * roi)).
        config: the weights, and the windows per pass.
        channels: of the outputs.
        sides: of the result, which is the middle of ``scale`` times the grid.
        scale: fine cells per coarse cell and axis.

    Returns:
        float32 (1, channels, *sides), contiguous, on the CPU.
    """
    shares = axis_shares(windows, scale, config.mode)
    before = [(scale * n - side) // 2 for n, side in zip(windows.sides, sides, strict=True)]
    total = torch.zeros(channels, *sides, dtype=torch.float32)

    def run(starts: Sequence[Start]) -> Tensor:
        return network(torch.cat([cut(start) for start in starts])).float().cpu()

    def add(start: Start, output: Tensor) -> None:
        weight = torch.ones(())
        place, inside = [slice(None)], [slice(None)]
        for share, s, b, side in zip(shares, start, before, sides, strict=True):
            first = scale * s - b
            low, high = max(first, 0), min(first + len(share[s]), side)
            place.append(slice(low, high))
            inside.append(slice(low - first, high - first))
            weight = weight[..., None] * share[s][inside[-1]]
        total[tuple(place)] += weight * output[tuple(inside)]

    groups: dict[Hashable, list[Start]] = {}
    for start in windows.starts:
        groups.setdefault(uniform(cut(start)), []).append(start)
    rest = groups.pop(None, [])
    # Group by group, so that never more than one output is kept for later.
    for same in groups.values():
        (output,) = run(same[:1])
        for start in same:
            add(start, output)
    for first in range(0, len(rest), config.sw_batch_size):
        batch = rest[first : first + config.sw_batch_size]
        for start, output in zip(batch, run(batch), strict=True):
            add(start, output)
    return total[None]


def _windows(tokenizer: Tokenizer, grid: Sequence[int], config: SlidingWindowConfig) -> Windows:
    stride = tokenizer.autoencoder.stride
    return Windows.over(grid, [max(1, side // stride) for side in config.roi_size], config.overlap)


@torch.no_grad()
def encode_latent(tokenizer: Tokenizer, volume: Volume, config: SlidingWindowConfig) -> Latent:
    """Volume (1, C, D, H, W) in [0, 1], any size -> blended latent (1, l, *grid), on the CPU."""
    stride, grid = tokenizer.autoencoder.stride, tokenizer.grid(volume.shape[2:])
    windows = _windows(tokenizer, grid, config)
    # The same padding as the autoencoder's own, so that one window gives what no window gives.
    before = [(stride * n - side) // 2 for n, side in zip(grid, volume.shape[2:], strict=True)]

    def cut(start: Start) -> Tensor:
        first = [stride * s - b for s, b in zip(start, before, strict=True)]
        return replicated_crop(volume, first, [stride * r for r in windows.roi])

    def network(crops: Tensor) -> Tensor:
        return tokenizer.autoencoder.encode(crops.to(tokenizer.device))

    levels = len(tokenizer.fsq.levels)
    return blend(windows, cut, network, config, channels=levels, sides=grid, scale=1)


def encode(tokenizer: Tokenizer, volume: Volume, config: SlidingWindowConfig) -> Tokens:
    """Volume (1, C, D, H, W) in [0, 1], any size -> tokens (1, *grid), on the CPU."""
    latent, fsq = encode_latent(tokenizer, volume, config), tokenizer.fsq
    # Cell by cell anyway; a few planes at once spare several latents' worth of memory.
    parts = (fsq.quantize(planes.to(tokenizer.device)) for planes in latent.split(8, dim=2))
    return torch.cat([fsq.codes_to_indices(codes).cpu() for codes in parts], 1)


@torch.no_grad()
def decode(
    tokenizer: Tokenizer, tokens: Tokens, sides: Sequence[int], config: SlidingWindowConfig
) -> Volume:
    """Tokens (1, *grid) -> volume (1, C, D, H, W) of ``sides`` voxels in [0, 1], on the CPU.

    Raises:
        ValueError: a volume of ``sides`` has another grid.
    """
    grid = tuple(tokens.shape[1:])
    if grid != tokenizer.grid(sides):
        wanted = [*tokenizer.grid(sides)]
        raise ValueError(f"a volume of {[*sides]} has {wanted} tokens, not {[*grid]}")
    windows = _windows(tokenizer, grid, config)

    def cut(start: Start) -> Tensor:
        return tokens[(slice(None), *windows.cells(start))]

    def network(crops: Tensor) -> Tensor:
        return tokenizer.decode(crops.to(tokenizer.device))

    stride = tokenizer.autoencoder.stride
    volume = blend(windows, cut, network, config, channels=CHANNELS, sides=sides, scale=stride)
    return volume.clamp_(0, 1)  # the shares sum to 1 only up to rounding
