import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prod9.metrics.feature_sets import frechet_distance


def _draw(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def _exactly(mean, covariance, n=30, seed=0):
    """A sample whose mean and sample covariance are exactly these."""
    z = _draw(n, len(mean), seed)
    z = z - z.mean(0)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(z.T @ z / (n - 1)), z.T, upper=False
    )
    root = torch.linalg.cholesky(torch.as_tensor(covariance, dtype=torch.float64))
    return (root @ white).T + torch.as_tensor(mean, dtype=torch.float64)


def _by_eigenvalues(x, y):
    """Tr sqrt(Sx Sy) = Tr sqrt(sqrt(Sx) Sy sqrt(Sx)), in d x d matrices."""
    values, vectors = torch.linalg.eigh(torch.cov(x.T).view(x.shape[1], -1))
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ torch.cov(y.T).view(x.shape[1], -1) @ root)
    traces = x.var(0).sum() + y.var(0).sum()
    shift = (x.mean(0) - y.mean(0)).square().sum()
    return float(shift + traces - 2 * overlap.clamp_min(0).sqrt().sum())


def test_one_dimension():
    # Means 1 and 5, standard deviations 1 and sqrt(16) = 4: (1 - 5)^2 + (1 - 4)^2.
    x = torch.tensor([[0.0], [1.0], [2.0]])
    y = torch.tensor([[1.0], [5.0], [9.0]])
    assert frechet_distance(x, y) == pytest.approx(25)


def test_equal_covariances_leave_the_means():
    covariance = [[2.0, 0.5, 0.1], [0.5, 1.0, -0.3], [0.1, -0.3, 0.7]]
    x, y = _exactly([1, 2, 3], covariance), _exactly([1, 0, 6], covariance, n=50, seed=1)
    assert frechet_distance(x, y) == pytest.approx(4 + 9, rel=1e-12)


def test_commuting_covariances():
    a, b = torch.tensor([1.0, 4.0, 9.0, 0.25]), torch.tensor([4.0, 4.0, 1.0, 2.25])
    x, y = _exactly([0] * 4, a.diag()), _exactly([0, 0, 0, 1], b.diag(), n=12, seed=1)
    # Standard deviations 1, 2, 3, 0.5 and 2, 2, 1, 1.5; and a mean moved by 1.
    assert frechet_distance(x, y) == pytest.approx(1 + 0 + 4 + 1 + 1, rel=1e-12)


def test_covariances_that_do_not_commute():
    p, q = [[2.0, 1.0], [1.0, 1.0]], [[1.0, -0.5], [-0.5, 3.0]]
    # For 2 x 2 matrices Tr sqrt(M) = sqrt(Tr M + 2 sqrt(det M)); Tr pq = 2 - 1 + 3 = 4.
    overlap = math.sqrt(4 + 2 * math.sqrt(1.0 * 2.75))
    expected = 3 + 4 - 2 * overlap
    found = frechet_distance(_exactly([0, 0], p), _exactly([0, 0], q, seed=1))
    assert found == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40)
@given(
    n=st.integers(2, 25), m=st.integers(2, 25), d=st.integers(1, 12), seed=st.integers(0, 999)
)  # fmt: skip
def test_small_and_large_matrices_agree(n, m, d, seed):
    x, y = _draw(n, d, seed), 3 + 2 * _draw(m, d, seed + 1000)
    found = frechet_distance(x, y)
    assert found == pytest.approx(_by_eigenvalues(x, y), rel=1e-6)
    assert frechet_distance(y, x) == pytest.approx(found, rel=1e-12)


@settings(max_examples=25)
@given(n=st.integers(2, 40), d=st.integers(1, 40), seed=st.integers(0, 999))
def test_never_negative_and_zero_for_itself(n, d, seed):
    x = 100 + _draw(n, d, seed)
    assert 0 <= frechet_distance(x, x.flip(0)) < 1e-10 * d
    assert frechet_distance(x, x + 1e-9) >= 0


def test_fewer_vectors_than_dimensions_and_a_large_offset():
    # Two points each, on one line: as in one dimension, along the line.
    direction = torch.zeros(500, dtype=torch.float64)
    direction[7] = 1
    x = 1e5 + torch.tensor([[0.0], [2.0]], dtype=torch.float64) * direction
    y = 1e5 + torch.tensor([[1.0], [7.0]], dtype=torch.float64) * direction
    assert frechet_distance(x, y) == pytest.approx(9 + 2 * 2**2, rel=1e-9)


def test_scales_with_the_square_and_ignores_rotations():
    x, y = _draw(30, 6, 0), 1 + 2 * _draw(20, 6, 1)
    rotation = torch.linalg.qr(_draw(6, 6, 2)).Q
    found = frechet_distance(x, y)
    assert frechet_distance(3 * x @ rotation, 3 * y @ rotation) == pytest.approx(9 * found)


def test_the_floor_of_equal_sources_falls_with_the_number():
    floor = [frechet_distance(_draw(n, 20, 1), _draw(n, 20, 2)) for n in (10, 40, 160, 640)]
    assert floor == sorted(floor, reverse=True)
    assert floor[0] > 20 * floor[-1] > 0


def test_a_single_vector_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 vectors a set are needed, not 1 and 3"):
        frechet_distance(_draw(1, 4, 0), _draw(3, 4, 0))
