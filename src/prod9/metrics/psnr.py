"""Peak signal-to-noise ratio."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prod9.shapes import Volume

SLAB_VOXELS = 1 << 18
"""Voxels computed at once: fp64 copies of whole scans would be large."""


def psnr(
    prediction: Volume, target: Volume, mask: Bool[Tensor, "b 1 d h w"] | None = None
) -> Float[Tensor, " b"]:
    """10 log10(1 / mse) of each volume, in dB, for intensities in [0, 1], fp64.

    Only voxels in ``mask`` count, if given; NaN where it is empty. Identical volumes give inf.

    Raises:
        ValueError: differing shapes.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"shapes differ: {[*prediction.shape]} and {[*target.shape]}")
    if mask is not None and mask.shape != (len(target), 1, *target.shape[2:]):
        raise ValueError(f"a mask of {[*mask.shape]} does not fit {[*target.shape]}")
    depth = max(1, SLAB_VOXELS // max(1, prediction[:, :, 0].numel()))
    total = torch.zeros(len(target), dtype=torch.float64, device=target.device)
    for first in range(0, target.shape[2], depth):
        planes = slice(first, first + depth)
        error = (prediction[:, :, planes].double() - target[:, :, planes].double()).square()
        if mask is not None:
            error = torch.where(mask[:, :, planes], error, 0.0)
        total = total + error.flatten(1).sum(1)
    count = target.shape[1:].numel() if mask is None else mask.flatten(1).sum(1) * target.shape[1]
    return -10 * (total / count).log10()
