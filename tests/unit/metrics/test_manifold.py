import pytest
import torch

from prod9.metrics.feature_sets import density_coverage, precision_recall


def _modes(centres, each, generator):
    points = [c + 0.1 * torch.randn(each, 3, generator=generator) for c in centres]
    return torch.cat(points)


def test_known_points_on_a_line():
    # k = 1. Real radii: 1, 1, 2, 7. Generated radii: 0.4, 0.4, 14.1.
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    generated = torch.tensor([[0.5], [0.9], [15.0]])
    # Inside real balls: 0.5 is in those of 0 and 1; 0.9 in those of 0 and 1; 15 in that of 10.
    # Inside generated balls: (0.1, 0.9), (0.5, 1.3), (0.9, 29.1): 1, 3, 10, but not 0.
    found = precision_recall(real, generated, k=1)
    assert found == (1.0, 0.75)
    # Nearest generated: 0.5 < 1; 0.1 < 1; 2.1, not < 2; 5 < 7.
    found = density_coverage(real, generated, k=1)
    assert found == ((2 + 2 + 1) / 3, 0.75)


def test_on_the_edge_is_outside():
    real, generated = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [-1.0]])
    assert precision_recall(real, generated, k=1) == (0.0, 1.0)
    assert precision_recall(generated, real, k=1) == (1.0, 0.0)
    assert density_coverage(real, generated, k=1) == (0.0, 0.0)


def test_a_duplicate_is_a_fellow():
    # The radius of the doubled point is 0: nothing is strictly nearer, not even a copy.
    real = torch.tensor([[5.0], [5.0], [9.0]])
    generated = torch.tensor([[5.0], [5.0]])
    assert density_coverage(real, generated, k=1) == (0.0, 0.0)
    # With k = 2 it is 4.
    generated = torch.tensor([[5.0], [5.5], [20.0]])
    found = precision_recall(real, generated, k=2)
    assert found[0] == pytest.approx(2 / 3)


def test_a_dropped_mode():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0, 0], [5, 0, 0], [0, 5, 0], [0, 0, 5]])
    real = _modes(centres, 100, generator)
    full, dropped = _modes(centres, 100, generator), _modes(centres[:1], 400, generator)
    a, b = precision_recall(real, full), precision_recall(real, dropped)
    assert min(a[0], b[0]) > 0.85
    assert a[1] > 0.85
    assert b[1] <= 0.25
    c, d = density_coverage(real, full), density_coverage(real, dropped)
    assert 0.85 < c[0] < 1.15
    assert 0.85 < d[0] < 1.15
    assert c[1] > 0.9
    assert d[1] <= 0.25


def test_invented_volumes_lower_precision_and_density_alone():
    generator = torch.Generator().manual_seed(0)
    real, generated = torch.randn(2, 300, 4, generator=generator)
    before, c = precision_recall(real, generated), density_coverage(real, generated)
    noisy = torch.cat([generated, 40 + 5 * torch.randn(300, 4, generator=generator)])
    after, d = precision_recall(real, noisy), density_coverage(real, noisy)
    assert after[0] == before[0] / 2
    assert after[1] == pytest.approx(before[1], abs=0.02)
    assert d[0] == c[0] / 2
    assert d[1] == c[1]


def test_coverage_of_the_same_source():
    # Naeem et al. 2020, their Lemma 2: 1 - (n - 1) ... (n - k) / ((2n - 1) ... (2n - k)).
    generator = torch.Generator().manual_seed(0)
    n, expected = 60, 1.0
    for i in range(1, 6):
        expected *= (n - i) / (2 * n - i)
    expected = 1 - expected
    found = [density_coverage(*torch.randn(2, n, 5, generator=generator))[1] for _ in range(200)]
    assert sum(found) / 200 == pytest.approx(expected, abs=0.005)
    assert expected == pytest.approx(1 - 1 / 2**5, abs=0.005)


def test_large_sets_are_compared_in_blocks():
    # 2300 x 2000 distances are more than are held at once.
    real, generated = torch.randn(2, 2300, 2, generator=torch.Generator().manual_seed(0))
    generated = generated[:2000] + 0.5
    distance = torch.cdist(real.double(), generated.double())
    reach = torch.cdist(real.double(), real.double()).kthvalue(6).values
    inside = distance < reach[:, None]
    expected = (float(inside.sum()) / 5 / 2000, float(inside.any(1).double().mean()))
    assert density_coverage(real, generated) == pytest.approx(expected, abs=1e-3)


def test_too_few_vectors_are_refused():
    x = torch.rand(9, 2)
    with pytest.raises(ValueError, match="at least 4 vectors a set are needed, not 9 and 3"):
        precision_recall(x, x[:3])
    with pytest.raises(ValueError, match="at least 6 vectors a set are needed, not 5 and 9"):
        density_coverage(x[:5], x)
    assert precision_recall(x[:4], x[:4])[0] == 1.0
