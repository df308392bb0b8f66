import math
import statistics

import numpy as np
import pytest
import torch
from scipy import stats

from prod9.metrics import bootstrap as module
from prod9.metrics.bootstrap import (
    bootstrap_interval,
    percentile_interval,
    resampled_interval,
    wilson_interval,
)
from prod9.metrics.feature_sets import frechet_distance, kernel_distance


def _skewed(n, seed=0):
    normal = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normal.exp()


@pytest.mark.parametrize("n", [12, 80])
def test_as_scipy(n):
    values = _skewed(n)
    ours = bootstrap_interval(values, seed=0, resamples=20000)
    theirs = stats.bootstrap(
        (values.numpy(),), np.mean, method="percentile", n_resamples=20000,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    # Two quantiles of 20000 draws each: they differ by chance by some 2 % of the width.
    assert ours == pytest.approx(tuple(theirs), abs=0.04 * (theirs.high - theirs.low))


def test_holds_the_true_mean_as_often_as_it_says():
    # The mean of exp(normal) / 4 + normal: somewhat skewed.
    truth, hits = math.exp(0.5) / 4, 0
    for seed in range(600):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(60, generator=generator).exp() / 4
        values = values + torch.randn(60, generator=generator)
        lower, upper = bootstrap_interval(values, seed=seed, resamples=400)
        hits += lower <= truth <= upper
    assert 0.92 < hits / 600 < 0.97


@pytest.mark.parametrize("draws", [1, 500])
def test_blocks_and_seeds(draws, monkeypatch):
    values = _skewed(50)
    whole = bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) == whole != bootstrap_interval(values, seed=2)
    monkeypatch.setattr(module, "_DRAWS_AT_ONCE", draws)
    assert bootstrap_interval(values, seed=1) == whole


def test_order_statistics():
    # 2.5 % of 200 is 5: that many are left out at each end.
    estimates = torch.arange(200, dtype=torch.float64).flip(0)
    assert percentile_interval(estimates) == (5.0, 194.0)
    assert percentile_interval(estimates[:3]) == (197.0, 199.0)


def test_constant_values_have_no_spread():
    assert bootstrap_interval(torch.full((5,), 0.25), seed=0) == (0.25, 0.25)


def test_infinite_values_are_neither_a_crash_nor_hidden():
    values = 30 + _skewed(100)
    values[3] = math.inf
    # About 37 % of the resamples miss it: the lower end is one of theirs.
    lower, upper = bootstrap_interval(values, seed=0)
    assert 31 < lower < 33
    assert upper == math.inf
    assert bootstrap_interval(torch.full((4,), math.inf), seed=0) == (math.inf, math.inf)
    values[:50] = math.inf
    assert bootstrap_interval(values, seed=0) == (math.inf, math.inf)


def test_what_has_no_interval_is_refused():
    for bad in (math.nan, -math.inf):
        with pytest.raises(ValueError, match="NaN or -inf"):
            bootstrap_interval(torch.tensor([1.0, bad, 2.0]), seed=0)
    for n in (0, 1):
        with pytest.raises(ValueError, match=f"at least 2 values, not {n}"):
            bootstrap_interval(torch.ones(n), seed=0)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (1, 2), (30, 61), (609, 610), (1, 1)])
def test_wilson_as_scipy(k, n):
    theirs = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_takes_halves_and_stays_within_the_ends():
    low, middle, high = (wilson_interval(k, 10) for k in (3, 3.5, 4))
    assert low < middle < high
    assert wilson_interval(0, 7)[0] == 0.0
    assert wilson_interval(7, 7)[1] == 1.0
    # By the equation the interval solves: |share - p| = z sqrt(p (1 - p) / n) at its ends.
    for p in wilson_interval(3.5, 10):
        assert abs(0.35 - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / 10), rel=1e-6)


def _sets(n, m, d, generator):
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = 1.3 * torch.randn(m, d, generator=generator, dtype=torch.float64)
    return x, y + 2 / d**0.5


def _width(interval):
    return (interval[1] - interval[0]) / 3.92


@pytest.mark.parametrize(
    ("statistic", "n", "m", "d", "widest"),
    [
        (frechet_distance, 120, 120, 4, 1.2),
        (kernel_distance, 60, 50, 4, 1.2),
        (frechet_distance, 30, 40, 60, 1.45),
    ],
)
def test_width_of_a_set_distance_is_its_true_spread(statistic, n, m, d, widest):
    generator = torch.Generator().manual_seed(0)
    truth = [statistic(*_sets(n, m, d, generator)) for _ in range(250)]
    spread, mean = statistics.stdev(truth), statistics.mean(truth)
    found = [
        resampled_interval(statistic, *_sets(n, m, d, generator), seed=seed, resamples=80)
        for seed in range(40)
    ]
    # With more dimensions than vectors it is somewhat too wide, never too narrow.
    assert 0.9 < statistics.mean(map(_width, found)) / spread < widest
    assert sum(lower <= mean <= upper for lower, upper in found) >= 34  # of 40; 38 expected


def test_equal_sources_are_too_wide_but_not_beyond_what_is_said():
    generator = torch.Generator().manual_seed(0)

    def pair():
        return torch.randn(2, 60, 5, generator=generator, dtype=torch.float64)

    for statistic in (frechet_distance, kernel_distance):
        spread = statistics.stdev(statistic(*pair()) for _ in range(250))
        found = [resampled_interval(statistic, *pair(), seed=s, resamples=80) for s in range(16)]
        assert 1.4 < statistics.mean(map(_width, found)) / spread < 2.0


def test_with_replacement_would_be_biased():
    # Why halves: a bootstrap of equal sources lies wholly above the distance itself.
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 50, 20, generator=generator, dtype=torch.float64)
    drawn = [
        frechet_distance(
            x[torch.randint(50, (50,), generator=generator)],
            y[torch.randint(50, (50,), generator=generator)],
        )
        for _ in range(100)
    ]
    whole = frechet_distance(x, y)
    assert min(drawn) > whole
    lower, upper = resampled_interval(frechet_distance, x, y, seed=0, resamples=100)
    assert lower < whole < upper


def test_the_variance_of_a_mean_is_exact():
    # Of a difference of means the variance is known: that of the halves estimates it unbiased.
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 1, generator=generator, dtype=torch.float64) for n in (40, 60))
    interval = resampled_interval(
        lambda a, b: float(a.mean() - b.mean()), x, y, seed=0, resamples=4000
    )
    expected = float(x.var() / 40 + y.var() / 60) ** 0.5
    assert _width(interval) == pytest.approx(expected, rel=0.04)
    assert sum(interval) / 2 == pytest.approx(float(x.mean() - y.mean()), abs=0.1 * expected)


def test_the_interval_is_reflected():
    # A skewed distance reaches further up in the halves, so its true value may lie further down.
    x = torch.tensor([[4.0], [4.0]] + [[0.0]] * 6)
    # A half holds none, one or both of the fours, 3, 8 and 3 times in 14: squared means of 0, 1, 4.
    mean = (8 * 1 + 3 * 4) / 14
    found = resampled_interval(lambda a, _: float(a.mean() ** 2), x, x, seed=0)
    assert found == pytest.approx((1 - (4 - mean), 1 - (0 - mean)), abs=0.25)


def test_seeded():
    generator = torch.Generator().manual_seed(0)
    x, y = _sets(9, 8, 3, generator)
    first = resampled_interval(kernel_distance, x, y, seed=0, resamples=20)
    assert resampled_interval(kernel_distance, x, y, seed=0, resamples=20) == first
    assert resampled_interval(kernel_distance, x, y, seed=1, resamples=20) != first
