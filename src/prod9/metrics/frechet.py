"""Frechet distance of two sets of feature vectors, exact and in fp64."""

import torch

from prod9.metrics.feature_sets import Vectors, Vectors64, checked


def frechet_distance(x: Vectors, y: Vectors) -> float:
    """Squared Frechet distance |mx - my|^2 + Tr(Sx + Sy - 2 sqrt(Sx Sy)), at least 0.

    Of the Gaussians with the sets' means and sample covariances (n - 1), as in the FID (Dowson &
    Landau 1982, doi 10.1016/0047-259X(82)90077-X; Heusel et al. 2017, arXiv 1706.08500). Its
    expectation falls with the number of vectors, and is above 0 for two samples of one
    distribution: compare only equally large sets (Chong & Forsyth 2020, arXiv 1911.07023).
    """
    x, y = checked(x, y, least=2)
    a, b = _covariance_root(x), _covariance_root(y)
    # With Sx = A^T A and Sy = B^T B, the eigenvalues of Sx Sy are the squared singular values of
    # A B^T. No square root of a matrix is needed, which few vectors would make singular.
    overlap = torch.linalg.svdvals(a @ b.T).sum()
    shift = (x.mean(0) - y.mean(0)).square().sum()
    # Rounding could make the distance of equal sets negative.
    return max(0.0, float(shift + a.square().sum() + b.square().sum() - 2 * overlap))


def _covariance_root(x: Vectors64) -> Vectors64:
    """Return R with R^T R = the sample covariance of x, in min(n, d) rows."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred
