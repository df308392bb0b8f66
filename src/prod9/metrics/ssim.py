"""Structural similarity of volumes, at one scale and at several.

Wang et al. 2004, doi 10.1109/TIP.2003.819861, and 2003, doi 10.1109/ACSSC.2003.1292216.

Not MONAI's, which convolves with the full 3D window (six to ten times slower than the separable
one) in fp32, where the variance E[x^2] - E[x]^2 cancels: its SSIM of flat, bright regions is wrong
by up to 6e-4. Equal, in fp64, to scikit-image's
``structural_similarity(gaussian_weights=True, use_sample_covariance=False, data_range=1)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from prod9.shapes import Volume

C1 = 0.01**2
C2 = 0.03**2
"""(K1 R)^2 and (K2 R)^2 of the paper for a data range R of 1."""
_SIGMA = 1.5
"""Of the Gaussian window, in voxels."""
SLAB_VOXELS = 1 << 19
"""Windows computed at once. (More are slower: they leave the cache.)"""
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of MS-SSIM, finest scale first."""
MS_SSIM_WINDOW = 5


def _gaussian(window: int) -> list[float]:
    offsets = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    weights = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
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


@dataclass(frozen=True)
class _Local:
    """Volumes with mean and variance of each window inside, the last three axes of each."""

    values: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, x: Tensor, weights: list[float]) -> "_Local":
        mean = _local_mean(x, weights)
        return cls(x, mean, _local_mean(x * x, weights) - mean * mean)

    def __getitem__(self, rows: Any) -> "_Local":
        return _Local(self.values[rows], self.mean[rows], self.variance[rows])


def _similarity(x: _Local, y: _Local, weights: list[float]) -> tuple[Tensor, Tensor]:
    """Return luminance and contrast of each window inside."""
    means = x.mean * y.mean
    covariance = _local_mean(x.values * y.values, weights) - means
    contrast = (2 * covariance + C2) / (x.variance + y.variance + C2)
    return (2 * means + C1) / (x.mean * x.mean + y.mean * y.mean + C1), contrast


def ssim_and_contrast(
    prediction: Volume,
    target: Volume,
    window: int = 11,
    mask: Bool[Tensor, "b 1 d h w"] | None = None,
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """SSIM and its contrast-structure factor (eq. 13 of the paper without luminance), fp64.

    Means over channels and the windows inside the volume; as :func:`ssim`.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"shapes differ: {[*prediction.shape]} and {[*target.shape]}")
    if min(prediction.shape[2:]) < window:
        sides = [*prediction.shape[2:]]
        raise ValueError(f"a window of {window} does not fit a volume of {sides}")
    if mask is not None:
        if mask.shape != (len(target), 1, *target.shape[2:]):
            raise ValueError(f"a mask of {[*mask.shape]} does not fit {[*target.shape]}")
        if window % 2 == 0:
            raise ValueError(f"a window of {window} has no centre voxel; use an odd window")
    weights, half = _gaussian(window), (window - 1) // 2
    planes = prediction.shape[2] - window + 1
    depth = max(1, SLAB_VOXELS // max(1, prediction[:1, :, 0].numel()))
    total = torch.zeros(2, len(prediction), dtype=torch.float64, device=prediction.device)
    count = torch.zeros_like(total[0])
    for index, (one, other) in enumerate(zip(prediction, target, strict=True)):
        for first in range(0, planes, depth):  # slabs, whose fp64 copies fit into memory
            inside = slice(first, min(first + depth, planes) + window - 1)
            x, y = one[:, inside].double(), other[:, inside].double()
            luminance, contrast = _similarity(_Local.of(x, weights), _Local.of(y, weights), weights)
            both = torch.stack([luminance * contrast, contrast])  # (2, C, k, h, w)
            if mask is None:
                count[index] += both[0].numel()
            else:
                d, (k, h, w) = first + half, both.shape[2:]
                centres = mask[index, :, d : d + k, half : half + h, half : half + w]
                both = torch.where(centres, both, 0.0)
                count[index] += centres.sum() * both.shape[1]
            total[:, index] += both.flatten(1).sum(1)
    similarity, structure = total / count
    return similarity, structure


def ssim(
    prediction: Volume,
    target: Volume,
    window: int = 11,
    mask: Bool[Tensor, "b 1 d h w"] | None = None,
) -> Float[Tensor, " b"]:
    """SSIM of each volume, in [-1, 1], for intensities in [0, 1], fp64.

    With a mask only those windows inside the volume count whose centre lies in it; NaN where there
    are none.

    Raises:
        ValueError: differing shapes, a side shorter than the window, or a mask with a window of an
            even side (which has no centre).
    """
    return ssim_and_contrast(prediction, target, window, mask)[0]


def num_scales(side: int) -> int:
    """How many scales, each half the last, keep at least one window: 3 at 28, 4 at 64; 0 to 5."""
    return sum(side >> scale >= MS_SSIM_WINDOW for scale in range(len(SCALE_WEIGHTS)))


def ms_ssim(prediction: Volume, target: Volume) -> Float[Tensor, " b"]:
    """Multi-scale SSIM of each pair of volumes, in [0, 1], for intensities in [0, 1], fp64.

    As many scales as the shortest side (at least 5) admits, with the paper's exponents for that
    many scales, normalised to sum 1: values compare only between volumes of one size. The paper's
    five scales with a window of 11 need sides of 176; hence a window of 5. Negative factors count
    as 0, as in MONAI and torchmetrics.
    """
    exponents = _exponents(prediction.shape[2:])
    x, y = prediction.double(), target.double()
    product = torch.ones(len(x), dtype=torch.float64, device=x.device)
    for scale, exponent in enumerate(exponents):
        if scale:
            x, y = F.avg_pool3d(x, 2), F.avg_pool3d(y, 2)
        similarity, contrast = ssim_and_contrast(x, y, MS_SSIM_WINDOW)
        # Luminance enters at the coarsest scale alone.
        factor = similarity if scale == len(exponents) - 1 else contrast
        product = product * factor.clamp_min(0) ** exponent
    return product


def _exponents(sides: Sequence[int]) -> list[float]:
    scales = max(1, num_scales(min(sides)))
    exponents = torch.tensor(SCALE_WEIGHTS[:scales], dtype=torch.float64)
    return (exponents / exponents.sum()).tolist()


def ms_ssim_matrix(volumes: Float[Tensor, "n 1 d h w"]) -> Float64[Tensor, "n n"]:
    """Return :func:`ms_ssim` of every pair of volumes; NaN on the diagonal.

    What a window needs of one volume alone is computed once, not once a pair.
    """
    n, weights = len(volumes), _gaussian(MS_SSIM_WINDOW)
    first, second = torch.triu_indices(n, n, 1)
    exponents = _exponents(volumes.shape[2:])
    product = torch.ones(len(first), dtype=torch.float64, device=volumes.device)
    x = volumes.double()
    for scale, exponent in enumerate(exponents):
        x = F.avg_pool3d(x, 2) if scale else x
        local, last = _Local.of(x[:, 0], weights), scale == len(exponents) - 1
        pairs = max(1, SLAB_VOXELS // x[0].numel())
        for part in torch.arange(len(first), device=x.device).split(pairs):
            luminance, contrast = _similarity(local[first[part]], local[second[part]], weights)
            factor = (luminance * contrast if last else contrast).mean((1, 2, 3))
            product[part] *= factor.clamp_min(0) ** exponent
    scores = torch.full((n, n), torch.nan, dtype=torch.float64, device=volumes.device)
    scores[first, second] = scores[second, first] = product
    return scores
