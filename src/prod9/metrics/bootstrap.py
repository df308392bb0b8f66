"""95 % intervals: of a mean over volumes, of a share, of a distance between sets."""

import math
from collections.abc import Callable
from statistics import NormalDist

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

Interval = tuple[float, float]
"""Lower and upper end."""

_LEVEL = 0.95
_DRAWS_AT_ONCE = 1 << 20


def bootstrap_interval(
    values: Float[Tensor, " n"], *, seed: int, resamples: int = 2000
) -> Interval:
    """Percentile bootstrap interval of the mean of one value per volume (Efron 1979), fp64.

    The ends are order statistics of the resampled means, without interpolation, so that values of
    +inf (the PSNR of a perfect copy) are allowed.

    Raises:
        ValueError: fewer than two values, NaN or -inf.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 values, not {n}")
    values = values.double().cpu()
    if values.isnan().any() or values.isneginf().any():
        raise ValueError("values are NaN or -inf")
    random = torch.Generator().manual_seed(seed)
    means = [
        values[torch.randint(n, (len(part), n), generator=random)].mean(1)
        for part in torch.arange(resamples).split(max(1, _DRAWS_AT_ONCE // n))
    ]
    return percentile_interval(torch.cat(means))


def table_interval(
    values: Float[Tensor, "s n"], *, seed: int, resamples: int = 2000
) -> Interval | None:
    """Percentile bootstrap interval of the mean of a table, over its rows and over its columns.

    Rows are trainings, columns are subjects: both are drawn with replacement, apart from each
    other. None where there are fewer than two subjects.
    """
    rows, columns = values.shape
    if columns < 2:
        return None
    random = torch.Generator().manual_seed(seed)
    values = values.double().cpu()
    means = torch.empty(resamples, dtype=torch.float64)
    for index in range(resamples):
        row = torch.randint(rows, (rows,), generator=random)
        column = torch.randint(columns, (columns,), generator=random)
        means[index] = values[row][:, column].mean()
    return percentile_interval(means)


def subject_interval(
    statistic: Callable[[Float64[Tensor, "r n"]], Float64[Tensor, " r"]],
    subjects: int,
    *,
    seed: int,
    resamples: int = 2000,
) -> Interval | None:
    """Percentile bootstrap interval of any figure of subjects, who may have several values each.

    ``statistic`` is told how often each subject was drawn, in every resample. Those in which it is
    not finite are left out. None where there are fewer than two subjects.
    """
    if subjects < 2:
        return None
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randint(subjects, (resamples, subjects), generator=random)
    found = statistic(F.one_hot(drawn, subjects).sum(1).double())
    found = found[found.isfinite()]
    return percentile_interval(found) if len(found) else None


def percentile_interval(estimates: Float64[Tensor, " r"]) -> Interval:
    """Return the order statistics that leave out at most 2.5 % at each end."""
    ordered = estimates.sort().values
    outside = math.floor((1 - _LEVEL) / 2 * len(ordered))
    return float(ordered[outside]), float(ordered[-1 - outside])


def wilson_interval(successes: float | int, total: float | int) -> Interval:
    """Interval of a share (Wilson 1927, doi 10.1080/01621459.1927.10502953), within [0, 1].

    ``successes`` may be a fraction (ties count half), and ``total``, the number of independent
    trials, too (dependent ones count less).
    """
    z = NormalDist().inv_cdf((1 + _LEVEL) / 2)
    share, scale = successes / total, 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    # Exactly 0 and 1 at the ends, where rounding would leave 1e-17.
    lower = max(0.0, centre - half) if successes > 0 else 0.0
    return lower, min(1.0, centre + half) if successes < total else 1.0


def resampled_interval(
    statistic: Callable[[Tensor, Tensor], float],
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    *,
    seed: int,
    resamples: int = 200,
) -> Interval:
    """Interval of a distance between sets of at least four vectors, from random halves of both.

    Sampling with replacement (bootstrap) is wrong here: duplicates shrink covariances and enter a
    U-statistic as pairs. So halves are drawn without replacement (subsampling: Politis & Romano
    1994, doi 10.1214/aos/1176325770; delete-half jackknife: Wu 1990, doi 10.1214/aos/1176347741).
    Half as many vectors make the spread sqrt(2) times as large, the overlap of the halves sqrt(1/2)
    times: no factor is left. A half's distance has another bias: only its deviations from the mean
    of all halves are used. The ends may lie below 0.

    The interval holds the chance in sets of these sizes, not the bias of few vectors. For equal
    sources the distance varies like 1/n, and the interval is up to twice too wide.
    """
    n, m = len(x), len(y)
    random = torch.Generator().manual_seed(seed)
    halves = torch.empty(resamples, dtype=torch.float64)
    for index in range(resamples):
        of_x = torch.randperm(n, generator=random)[: n // 2]
        of_y = torch.randperm(m, generator=random)[: m // 2]
        halves[index] = statistic(x[of_x.to(x.device)], y[of_y.to(y.device)])
    lower, upper = percentile_interval(halves - halves.mean())
    whole = statistic(x, y)
    return whole - upper, whole - lower
