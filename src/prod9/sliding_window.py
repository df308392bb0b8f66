"""Volumes of any size through a tokenizer that was trained on crops.

Latents of overlapping windows are blended *before* quantisation and quantised once: blending codes
would leave half of them off the grid. Windows start on multiples of the stride, so that each covers
whole cells of the token grid.

Windows that hold one value everywhere, such as a scan's background, go through the network once for
each value. (Background rarely has *tokens* of one value: what a window's own border does to its
latent shows in them. The decoder gains less than the encoder.)
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from prod9.config.sampler import SlidingWindowConfig
from prod9.shapes import Latent, Tokens, Volume
from prod9.tokenizer import CHANNELS, Tokenizer
from prod9.windows import Start, Windows, blend, replicated_crop, uniform


def _windows(tokenizer: Tokenizer, grid: Sequence[int], config: SlidingWindowConfig) -> Windows:
    """Return the windows over a token grid, in cells."""
    stride = tokenizer.autoencoder.stride
    return Windows.over(grid, [max(1, side // stride) for side in config.roi_size], config.overlap)


@torch.no_grad()
def encode_latent(tokenizer: Tokenizer, volume: Volume, config: SlidingWindowConfig) -> Latent:
    """Volume (1, C, D, H, W) in [0, 1], any size -> blended raw latent (1, l, *grid), on the CPU.

    Needs memory for one batch of windows beside volume and latent.
    """
    stride, grid = tokenizer.autoencoder.stride, tokenizer.grid(volume.shape[2:])
    windows = _windows(tokenizer, grid, config)
    device = next(tokenizer.parameters()).device
    # The same padding as the autoencoder's own, so that one window gives what no window gives.
    before = [(stride * n - side) // 2 for n, side in zip(grid, volume.shape[2:], strict=True)]
    sides = [stride * r for r in windows.roi]

    def crop(start: Start) -> Tensor:
        first = [stride * s - b for s, b in zip(start, before, strict=True)]
        return replicated_crop(volume, first, sides)

    def run(starts: Sequence[Start]) -> Tensor:
        return tokenizer.autoencoder.encode(torch.cat([crop(s) for s in starts]).to(device))

    def alike(start: Start) -> Hashable:
        return uniform(crop(start))

    return blend(
        windows,
        run,
        alike,
        channels=len(tokenizer.fsq.levels),
        sides=grid,
        scale=1,
        mode=config.mode,
        batch_size=config.sw_batch_size,
    )[None]


def encode(tokenizer: Tokenizer, volume: Volume, config: SlidingWindowConfig) -> Tokens:
    """Volume (1, C, D, H, W) in [0, 1], any size -> tokens (1, *grid), on the CPU."""
    latent, fsq = encode_latent(tokenizer, volume, config), tokenizer.fsq
    device = next(tokenizer.parameters()).device
    # Cell by cell anyway; a few planes at once spare several latents' worth of memory.
    parts = (fsq.quantize(planes.to(device)) for planes in latent.split(8, dim=2))
    return torch.cat([fsq.codes_to_indices(codes).cpu() for codes in parts], 1)


@torch.no_grad()
def decode(
    tokenizer: Tokenizer, tokens: Tokens, sides: Sequence[int], config: SlidingWindowConfig
) -> Volume:
    """Tokens (1, *grid) -> volume (1, C, D, H, W) of ``sides`` voxels in [0, 1], on the CPU.

    Needs memory for one batch of windows beside the result, which is contiguous: windows are
    written to it without the voxels that pad it to the stride, so nothing is left to crop.

    Raises:
        ValueError: a volume of ``sides`` has another grid.
    """
    stride, grid = tokenizer.autoencoder.stride, tuple(tokens.shape[1:])
    if grid != tokenizer.grid(sides):
        raise ValueError(
            f"a volume of {[*sides]} has {[*tokenizer.grid(sides)]} tokens, not {[*grid]}; give "
            "the sides of the volume that was encoded"
        )
    windows = _windows(tokenizer, grid, config)
    device = next(tokenizer.parameters()).device

    def window(start: Start) -> Tensor:
        return tokens[(slice(None), *windows.cells(start))]

    def run(starts: Sequence[Start]) -> Tensor:
        return tokenizer.decode(torch.cat([window(s) for s in starts]).to(device))

    def alike(start: Start) -> Hashable:
        return uniform(window(start))

    volume = blend(
        windows,
        run,
        alike,
        channels=CHANNELS,
        sides=sides,
        scale=stride,
        mode=config.mode,
        batch_size=config.sw_batch_size,
    )[None]
    return volume.clamp_(0, 1)  # the shares sum to 1 only up to rounding
