"""Peak signal-to-noise ratio."""

from jaxtyping import Float
from torch import Tensor

from prod9.shapes import Volume


def psnr(prediction: Volume, target: Volume) -> Float[Tensor, " b"]:
    """10 log10(1 / mse) of each volume, in dB, for intensities in [0, 1], fp64.

    Identical volumes give inf, without a cap: a made-up ceiling would pass for a measurement, and
    an infinite mean points at a test that compares a volume with itself.

    Raises:
        ValueError: differing shapes.

    """
    if prediction.shape != target.shape:
        raise ValueError(f"shapes differ: {[*prediction.shape]} and {[*target.shape]}")
    error = (prediction.double() - target.double()).square().flatten(1).mean(1)
    return -10 * error.log10()
