"""Distances between sets, against the packages that papers take them from."""

import contextlib
import io

import numpy as np
import pytest
import scipy.linalg
import torch
from monai.metrics.fid import get_fid_score
from prdc import compute_prdc
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from prod9.metrics.feature_sets import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)


def _sets(n, m, d, seed=0):
    """Correlated features of two differing sources."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64) / d**0.5
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix
    y = 0.2 + 1.2 * torch.randn(m, d, generator=generator, dtype=torch.float64) @ mix
    return x, y


def _moments(x):
    return x.mean(0), torch.cov(x.T)


# More vectors than dimensions, some more, fewer: then the product of covariances is singular, and
# a square root of it only half as exact.
SIZES = [(300, 200, 16, 1e-8), (90, 120, 64, 1e-8), (30, 40, 64, 1e-3), (5, 5, 128, 1e-3)]


@pytest.mark.parametrize(("n", "m", "d", "tolerance"), SIZES)
def test_frechet_as_torchmetrics(n, m, d, tolerance):
    x, y = _sets(n, m, d)
    expected = _compute_fid(*_moments(x), *_moments(y)).item()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(("n", "m", "d", "tolerance"), SIZES)
def test_frechet_as_monai(n, m, d, tolerance):
    x, y = _sets(n, m, d)
    assert frechet_distance(x, y) == pytest.approx(get_fid_score(x, y).item(), rel=tolerance)


@pytest.mark.parametrize(("n", "m", "d", "tolerance"), SIZES)
def test_frechet_as_scipy(n, m, d, tolerance):
    x, y = _sets(n, m, d)
    (mx, sx), (my, sy) = _moments(x), _moments(y)
    root = scipy.linalg.sqrtm((sx @ sy).numpy())
    expected = float((mx - my).square().sum() + sx.trace() + sy.trace()) - 2 * root.trace().real
    assert frechet_distance(x, y) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(("n", "d"), [(2, 3), (50, 8), (40, 200)])
def test_kernel_as_torchmetrics(n, d):
    x, y = _sets(n, n, d)
    assert kernel_distance(x, y) == pytest.approx(poly_mmd(x, y).item(), rel=1e-8)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m", "d"), [(60, 60, 3), (80, 40, 12), (7, 9, 30)])
def test_manifold_as_its_authors(n, m, d, k):
    x, y = _sets(n, m, d)
    with contextlib.redirect_stdout(io.StringIO()):
        expected = compute_prdc(x.numpy(), y.numpy(), nearest_k=k)
    found = [*precision_recall(x, y, k), *density_coverage(x, y, k)]
    names = ["precision", "recall", "density", "coverage"]
    np.testing.assert_allclose(found, [expected[name] for name in names], rtol=1e-12)
    # It would say little about figures that are all 0 or 1.
    assert any(0 < figure < 1 for figure in found)
