"""Structural similarity of volumes (Wang et al. 2004, doi 10.1109/TIP.2003.819861).

Ours rather than MONAI's, which convolves with the full 3D window (1,331 products a voxel where the
separable one needs 33; six to ten times slower) in fp32, where the variance E[x^2] - E[x]^2
cancels: its SSIM of flat, bright regions is off by up to 6e-4. Equal, in fp64, to scikit-image's
``structural_similarity(gaussian_weights=True, use_sample_covariance=False, data_range=1)``.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from prod9.shapes import Volume

C1 = 0.01**2
C2 = 0.03**2
"""(K1 R)^2 and (K2 R)^2 of the paper for a data range R of 1."""


def _gaussian(window: int, sigma: float) -> list[float]:
    offsets = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    return (weights / weights.sum()).tolist()


def _local_mean(x: Tensor, weights: list[float]) -> Tensor:
    """Gaussian mean over each window that fits inside; the last three axes shrink by window - 1."""
    for axis in (-3, -2, -1):
        size = x.shape[axis] - len(weights) + 1
        mean = x.narrow(axis, 0, size) * weights[0]
        for start, weight in enumerate(weights[1:], 1):
            mean.add_(x.narrow(axis, start, size), alpha=weight)
        x = mean
    return x


def ssim_and_contrast(
    prediction: Volume, target: Volume, window: int = 11, sigma: float = 1.5
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """SSIM and its contrast-structure factor (eq. 13 of the paper without luminance), fp64.

    Means over channels and over all windows that lie inside the volume.

    Raises:
        ValueError: differing shapes, or a side shorter than the window.

    """
    if prediction.shape != target.shape:
        raise ValueError(f"shapes differ: {[*prediction.shape]} and {[*target.shape]}")
    if min(prediction.shape[2:]) < window:
        raise ValueError(
            f"a window of {window} does not fit a volume of {[*prediction.shape[2:]]}; "
            "use a smaller window"
        )
    x, y = prediction.double(), target.double()
    moments = torch.stack([x, y, x * x, y * y, x * y])  # (5, B, C, D, H, W)
    mx, my, mxx, myy, mxy = _local_mean(moments, _gaussian(window, sigma)).unbind()
    variances = mxx - mx * mx + myy - my * my
    contrast = (2 * (mxy - mx * my) + C2) / (variances + C2)
    luminance = (2 * mx * my + C1) / (mx * mx + my * my + C1)
    return (luminance * contrast).flatten(1).mean(1), contrast.flatten(1).mean(1)


def ssim(
    prediction: Volume, target: Volume, window: int = 11, sigma: float = 1.5
) -> Float[Tensor, " b"]:
    """SSIM of each volume, in [-1, 1], for intensities in [0, 1], fp64.

    Raises:
        ValueError: differing shapes, or a side shorter than the window.

    """
    return ssim_and_contrast(prediction, target, window, sigma)[0]
