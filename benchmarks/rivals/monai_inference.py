"""MONAI's sliding windows around any encoder and decoder."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from monai.inferers import SlidingWindowInferer
from torch import Tensor

from prod9.config import SlidingWindowConfig
from prod9.fsq import FSQ

Network = Callable[[Tensor], Tensor]


def inferer(config: SlidingWindowConfig, scale: int = 1) -> SlidingWindowInferer:
    """Return MONAI's inferer with prod9's settings; ``scale``: voxels per cell of its input.

    The inferer finds out itself how much larger or smaller the network's output is.
    """
    return SlidingWindowInferer(
        roi_size=[side // scale for side in config.roi_size],
        sw_batch_size=config.sw_batch_size,
        overlap=config.overlap,
        mode=config.mode,
        padding_mode="replicate",
    )


def _padded(volume: Tensor, stride: int) -> Tensor:
    """Pad to a multiple of the stride: the inferer's windows must begin on whole cells."""
    missing = [(-side) % stride for side in reversed(volume.shape[2:])]
    pads = [p for m in missing for p in (m // 2, m - m // 2)]
    return F.pad(volume, pads, mode="replicate") if any(pads) else volume


@torch.no_grad()
def encode(
    network: Network, fsq: FSQ, volume: Tensor, stride: int, config: SlidingWindowConfig
) -> Tensor:
    """Volume (1, C, D, H, W) -> tokens: latents blended by the inferer, then quantised once."""
    latent = inferer(config)(_padded(volume, stride), network)
    assert isinstance(latent, Tensor)
    return fsq.codes_to_indices(fsq.quantize(latent))


@torch.no_grad()
def decode(
    network: Network,
    fsq: FSQ,
    tokens: Tensor,
    sides: Sequence[int],
    stride: int,
    config: SlidingWindowConfig,
) -> Tensor:
    """Tokens (1, *grid) -> volume (1, C, *sides) in [0, 1], blended by the inferer."""
    volume = inferer(config, stride)(fsq.indices_to_codes(tokens), network)
    assert isinstance(volume, Tensor)
    starts = [(n - side) // 2 for n, side in zip(volume.shape[2:], sides, strict=True)]
    (d, h, w), (sd, sh, sw) = starts, sides
    return volume[:, :, d : d + sd, h : h + sh, w : w + sw].clamp(0, 1)
