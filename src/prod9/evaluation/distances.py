"""Distances of generated from real volumes in a feature space, beside those of other real ones.

A distance between sets has no meaning by itself. Beside it stand the floor (as many other real
volumes against the same reference) and the curve over the number of volumes, because the Frechet
distance of few volumes is biased upwards by about c / N (Chong & Forsyth 2020, arXiv 1911.07023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prod9.evaluation.feature_spaces import FeatureSpace
from prod9.metrics.bootstrap import resampled_interval
from prod9.metrics.frechet import frechet_distance
from prod9.metrics.kernel_distance import kernel_distance
from prod9.metrics.manifold import density_coverage, precision_recall
from prod9.results.schema import CurvePoint, FeatureSpaceFigures, Neighbours, SetDistance

_REPEATS = 5
"""A figure of random subsets is the mean over this many."""
_FEWEST = 8
"""Volumes below which a distance has no interval."""
MOST_FOR_INTERVAL = 600
"""Vectors that an interval is computed from; of more it would take hours."""
_TOLERANCE = 0.05


@dataclass(frozen=True)
class Features:
    """The features of one set, with its classes."""

    values: Tensor
    """float64 (N, dimensions)."""
    labels: np.ndarray
    """int64 (N,)."""
    name: str = ""
    """Of the set."""

    def of_class(self, label: int) -> Tensor:
        """Return the features of a class."""
        return self.values[torch.from_numpy(self.labels == label)]


@dataclass(frozen=True)
class Floor:
    """Real volumes against other real volumes; no more of them than were generated."""

    values: Tensor
    """(N, dimensions)."""
    reference: Tensor
    """(M, dimensions)."""
    name: str


def distances(
    space: FeatureSpace,
    generated: Features,
    real: Features,
    other: Features | None,
    class_names: Sequence[str],
    seed: int,
    reconstructed: Tensor | None = None,
) -> FeatureSpaceFigures:
    """Measure generated volumes (at least two) in one feature space against ``real`` ones.

    Args:
        space: of the features.
        generated: features of the generated volumes.
        real: features of the reference, at least two.
        other: real volumes that are not in ``real``, for the floor; None: halves of ``real``.
        class_names: of the labels.
        seed: of all random subsets.
        reconstructed: reconstructions of real volumes, if there are any.
    """
    random, ours, theirs = np.random.default_rng(seed), generated.values, real.values
    floor = floor_of(len(ours), theirs, other, random)
    curve = _curve(ours, theirs, floor, random)
    limit, stable_from = _limit(curve)
    ratio = None if floor is None else _frechet_ratio(ours, floor, random)
    again = None
    if reconstructed is not None and len(reconstructed) > 1:
        part = _subset(reconstructed, min(len(ours), len(reconstructed)), random)
        again = set_distance(part, theirs, seed)
    return FeatureSpaceFigures(
        space=space.name,
        key=space.key,
        dimensions=space.dimensions,
        weights_sha256=space.weights_sha256,
        generated=set_distance(ours, theirs, seed),
        floor=None if floor is None else set_distance(floor.values, floor.reference, seed),
        floor_of=None if floor is None else floor.name,
        frechet_ratio=ratio,
        at_floor=None if floor is None else at_floor(ours, floor, seed),
        reconstructed=again,
        curve=curve,
        frechet_limit=limit,
        stable_from=stable_from,
        stable=stable_from is not None and min(len(ours), len(theirs)) >= stable_from,
        per_class={
            name: set_distance(generated.of_class(label), real.of_class(label), seed)
            for label, name in enumerate(class_names)
            if len(class_names) > 1
            and min(np.sum(generated.labels == label), np.sum(real.labels == label)) >= _FEWEST
        },
    )


def set_distance(features: Tensor, reference: Tensor, seed: int) -> SetDistance:
    """Measure one set against a reference, (N, D) and (M, D), N and M at least 2."""
    frechet_interval = kernel_interval = None
    if min(len(features), len(reference)) >= _FEWEST:
        low, high = _interval(frechet_distance, features, reference, seed)
        frechet_interval = max(0.0, low), high
        kernel_interval = _interval(kernel_distance, features, reference, seed)
    return SetDistance(
        **neighbours(features, reference).model_dump(),
        frechet=frechet_distance(features, reference),
        frechet_interval=frechet_interval,
        kernel=kernel_distance(features, reference),
        kernel_interval=kernel_interval,
    )


def neighbours(features: Tensor, reference: Tensor) -> Neighbours:
    """Measure what depends on the numbers of volumes: precision, recall, density, coverage."""
    n, m = len(features), len(reference)
    near = precision_recall(reference, features, k=3) if min(n, m) > 3 else None
    dense = density_coverage(reference, features, k=5) if min(n, m) > 5 else None
    return Neighbours(
        volumes=n,
        reference_volumes=m,
        precision=near and near[0],
        recall=near and near[1],
        density=dense and dense[0],
        coverage=dense and dense[1],
    )


def _interval(
    statistic: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor, seed: int
) -> tuple[float, float]:
    """Return an interval of a distance; of large sets too wide, because it is a subset's."""
    if max(len(x), len(y)) <= MOST_FOR_INTERVAL:
        return resampled_interval(statistic, x, y, seed=seed)
    stream = torch.Generator().manual_seed(seed)
    a, b = (
        rows[torch.randperm(len(rows), generator=stream)[:MOST_FOR_INTERVAL]] for rows in (x, y)
    )
    low, high = resampled_interval(statistic, a, b, seed=seed)
    shift = statistic(x, y) - statistic(a, b)
    return low + shift, high + shift


def floor_of(
    count: int, real: Tensor, other: Features | None, random: np.random.Generator
) -> Floor | None:
    """Return ``count`` real volumes, or all, against others; None where there are too few.

    The others are halves of ``real`` where ``other`` has fewer than two volumes.
    """
    if other is not None and len(other.values) > 1:
        count = min(count, len(other.values))
        return Floor(_subset(other.values, count, random), real, f"{count} of {other.name}")
    half = len(real) // 2
    if half < 2:
        return None
    count = min(half, max(2, count))
    order = torch.from_numpy(random.permutation(len(real)))
    name = f"{count} real volumes against {len(real) - half} others of the same set"
    return Floor(real[order[:count]], real[order[half:]], name)


def _frechet_ratio(generated: Tensor, floor: Floor, random: np.random.Generator) -> float | None:
    """Return the generated over the floor's distance, both of as many volumes.

    Against the same reference; the mean over random subsets where one set has more.
    """
    count = min(len(generated), len(floor.values))

    def mean(values: Tensor) -> float:
        parts = _subsets(values, count, random)
        return float(np.mean([frechet_distance(part, floor.reference) for part in parts]))

    base = mean(floor.values)
    return mean(generated) / base if base > 0 else None


def at_floor(generated: Tensor, floor: Floor, seed: int) -> Neighbours | None:
    """Measure as many generated volumes as there are in the floor, against its reference.

    Recall and coverage compare only at equal numbers: more volumes reach more real ones. The mean
    over random subsets where more were generated; None where fewer were.
    """
    count, random = len(floor.values), np.random.default_rng(seed)
    if len(generated) < count:
        return None
    found = [neighbours(part, floor.reference) for part in _subsets(generated, count, random)]
    means: dict[str, float | None] = {}
    for name in ("precision", "recall", "density", "coverage"):
        values = [getattr(part, name) for part in found]
        means[name] = None if None in values else float(np.mean(values))
    return found[0].model_copy(update=means)


def _subsets(values: Tensor, count: int, random: np.random.Generator) -> list[Tensor]:
    """Return random subsets of ``count``; only one if that is all."""
    repeats = 1 if len(values) == count else _REPEATS
    return [_subset(values, count, random) for _ in range(repeats)]


def _subset(values: Tensor, count: int, random: np.random.Generator) -> Tensor:
    """Return ``count`` rows, chosen at random, none twice."""
    return values[torch.from_numpy(random.choice(len(values), count, replace=False))]


def _curve(
    generated: Tensor, real: Tensor, floor: Floor | None, random: np.random.Generator
) -> list[CurvePoint]:
    def repeated(values: Tensor, reference: Tensor, size: int) -> list[float]:
        return [
            frechet_distance(_subset(values, size, random), _subset(reference, size, random))
            for _ in range(_REPEATS)
        ]

    most = min(len(generated), len(real))
    points: list[CurvePoint] = []
    for size in sorted({most >> k for k in range(4) if most >> k >= _FEWEST}):
        found, below = repeated(generated, real, size), None
        if floor is not None and min(len(floor.values), len(floor.reference)) >= size:
            below = float(np.mean(repeated(floor.values, floor.reference, size)))
        mean, deviation = float(np.mean(found)), float(np.std(found))
        points.append(CurvePoint(volumes=size, generated=mean, generated_sd=deviation, floor=below))
    return points


def _limit(curve: Sequence[CurvePoint]) -> tuple[float | None, int | None]:
    """Return a of the line a + c / N through the curve's end, and the N where c / N is 5 % of it.

    The second is None where there is no such N: too few points, or a that may well be 0. Two fits
    must agree on that: the line through the last three points, and that through the last two.
    """
    points = curve[-3:]
    if len(points) < 3:
        return None, None
    slope, intercept = np.polyfit(
        [1 / point.volumes for point in points], [point.generated for point in points], 1
    )
    # Twice as many volumes halve c / N.
    last = 2 * points[-1].generated - points[-2].generated
    lowest = min(float(intercept), last)
    if lowest <= 0 or slope <= 0:
        return float(intercept), None
    return float(intercept), max(2, int(np.ceil(slope / (_TOLERANCE * lowest))))
