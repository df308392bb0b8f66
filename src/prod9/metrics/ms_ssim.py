"""Multi-scale structural similarity (Wang et al. 2003, doi 10.1109/ACSSC.2003.1292216)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prod9.metrics.ssim import ssim_and_contrast
from prod9.shapes import Volume

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the paper, finest scale first."""


def num_scales(side: int, window: int = 5) -> int:
    """How many scales, each half the last, keep at least one window: 3 at 28, 4 at 64; 0 to 5."""
    return sum(side >> scale >= window for scale in range(len(SCALE_WEIGHTS)))


def ms_ssim(
    prediction: Volume, target: Volume, window: int = 5, sigma: float = 1.5
) -> Float[Tensor, " b"]:
    """MS-SSIM of each pair of volumes, in [0, 1], for intensities in [0, 1], fp64.

    As many scales as the shortest side admits, with the paper's exponents for that many scales,
    normalised to sum 1: values compare only between volumes of one size and one window. The paper's
    five scales with a window of 11 need sides of 176; hence the small window. Negative factors
    count as 0, as in MONAI and torchmetrics.

    Raises:
        ValueError: differing shapes, or a side shorter than the window.
    """
    scales = max(1, num_scales(min(prediction.shape[2:]), window))
    exponents = torch.tensor(SCALE_WEIGHTS[:scales], dtype=torch.float64)
    exponents = (exponents / exponents.sum()).tolist()
    x, y = prediction.double(), target.double()
    product = torch.ones(len(x), dtype=torch.float64, device=x.device)
    for scale, exponent in enumerate(exponents):
        if scale:
            x, y = F.avg_pool3d(x, 2), F.avg_pool3d(y, 2)
        similarity, contrast = ssim_and_contrast(x, y, window, sigma)
        # Luminance enters at the coarsest scale alone.
        factor = similarity if scale == scales - 1 else contrast
        product = product * factor.clamp_min(0) ** exponent
    return product
