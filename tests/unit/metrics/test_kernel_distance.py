import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prod9.metrics.feature_sets import frechet_distance, kernel_distance


def _draw(n, d, generator):
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def _by_loops(x, y):
    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    x, y = x.tolist(), y.tolist()
    within = [
        sum(kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j)
        / (len(s) * (len(s) - 1))
        for s in (x, y)
    ]
    across = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return sum(within) - 2 * across


def test_a_known_value():
    # Kernels: 0 with 2: 1; 1 with 3: 4^3 = 64; across 1, 1, 27, 343: mean 93.
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])
    assert kernel_distance(x, y) == pytest.approx(1 + 64 - 2 * 93)


@settings(max_examples=25)
@given(n=st.integers(2, 9), m=st.integers(2, 9), d=st.integers(1, 5), seed=st.integers(0, 999))
def test_as_two_loops(n, m, d, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = _draw(n, d, generator), 1 + 2 * _draw(m, d, generator)
    assert kernel_distance(x, y) == pytest.approx(_by_loops(x, y), rel=1e-9, abs=1e-9)


def test_many_vectors_in_blocks():
    generator = torch.Generator().manual_seed(0)
    x, y = _draw(1030, 3, generator), 1 + _draw(1100, 3, generator)
    kernels = [(a @ b.T / 3 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    within = [(k.sum() - k.diag().sum()) / (len(k) * (len(k) - 1)) for k in kernels[:2]]
    expected = float(sum(within) - 2 * kernels[2].mean())
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_unbiased_where_the_frechet_distance_is_not():
    generator = torch.Generator().manual_seed(0)
    pairs = [(_draw(12, 6, generator), _draw(20, 6, generator)) for _ in range(600)]
    kernel = [kernel_distance(x, y) for x, y in pairs]
    error = statistics.stdev(kernel) / 600**0.5
    assert abs(statistics.mean(kernel)) < 3 * error
    assert error < 0.02  # the diagonals, left in, would add about 1
    frechet = [frechet_distance(x, y) for x, y in pairs]
    assert statistics.mean(frechet) > 50 * statistics.stdev(frechet) / 600**0.5
    # Its sign is free: cut off at 0 it would be biased.
    assert 0.3 < sum(k < 0 for k in kernel) / 600 < 0.8


def test_grows_with_the_shift():
    generator = torch.Generator().manual_seed(0)
    x, y = _draw(100, 8, generator), _draw(100, 8, generator)
    found = [kernel_distance(x, y + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found)
    assert found[1] > 5 * abs(found[0])


def test_a_single_vector_is_refused():
    with pytest.raises(ValueError, match="at least 2 vectors"):
        kernel_distance(torch.rand(4, 3), torch.rand(1, 3))
