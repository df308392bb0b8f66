"""Kernel distance of two sets of feature vectors, exact and in fp64."""

from prod9.metrics.feature_sets import Vectors, Vectors64, checked

_ROWS = 1024
"""Rows of a kernel matrix held at once."""


def kernel_distance(x: Vectors, y: Vectors) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x y / d + 1)^3.

    The kernel distance (KID) of Binkowski et al. 2018, arXiv 1801.01401. Unlike the Frechet
    distance it is 0 on average for two samples of one distribution, whatever their number; about
    half of such pairs come out below 0.
    """
    x, y = checked(x, y, least=2)
    return _mean_within(x) + _mean_within(y) - 2 * _kernel_sum(x, y) / (len(x) * len(y))


def _kernel_sum(x: Vectors64, y: Vectors64) -> float:
    return sum(float((part @ y.T / x.shape[1] + 1).pow(3).sum()) for part in x.split(_ROWS))


def _mean_within(x: Vectors64) -> float:
    """Mean of the kernel over pairs of different vectors: a vector with itself would bias it."""
    itself = float((x.square().mean(1) + 1).pow(3).sum())
    return (_kernel_sum(x, x) - itself) / (len(x) * (len(x) - 1))
