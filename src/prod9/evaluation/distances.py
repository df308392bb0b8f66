"""Distances of generated from real volumes in a feature space, beside those of other real ones.

A distance between sets has no meaning by itself. Beside it stand the floor (as many other real
volumes against the same reference) and the curve over the number of volumes, because the Frechet
distance of few volumes is biased upwards by about c / N (Chong & Forsyth 2020, arXiv 1911.07023).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prod9.evaluation.features.spaces import FeatureSpace
from prod9.evaluation.floor import REPEATS, Floor, at_floor, floor_of, frechet_ratio, subset
from prod9.evaluation.set_distance import FEWEST, set_distance
from prod9.metrics.frechet import frechet_distance
from prod9.results.distances import CurvePoint, FeatureSpaceFigures

_TOLERANCE = 0.05


@dataclass(frozen=True)
class Features:
    """The features of one set, with its classes."""

    values: Tensor
    """float64 (N, dimensions)."""
    labels: np.ndarray
    """int64 (N,)."""

    def of_class(self, label: int) -> Tensor:
        """Return the features of a class."""
        return self.values[torch.from_numpy(self.labels == label)]


def distances(
    space: FeatureSpace,
    generated: Features,
    real: Features,
    other: Tensor | None,
    other_name: str,
    class_names: Sequence[str],
    seed: int,
    reconstructed: Tensor | None = None,
) -> FeatureSpaceFigures:
    """Measure generated volumes in one feature space.

    Args:
        space: of the features.
        generated: at least two.
        real: the reference, at least two.
        other: real volumes that are not in ``real``, for the floor; None: halves of ``real``.
        other_name: what they are.
        class_names: of the labels.
        seed: of all random subsets.
        reconstructed: reconstructions of real volumes, if there are any.
    """
    random, ours, theirs = np.random.default_rng(seed), generated.values, real.values
    floor = floor_of(len(ours), theirs, other, other_name, random)
    curve = _curve(ours, theirs, floor, random)
    limit, stable_from = _limit(curve)
    ratio = None if floor is None else frechet_ratio(ours, floor, random)
    again = None
    if reconstructed is not None and len(reconstructed) > 1:
        part = subset(reconstructed, min(len(ours), len(reconstructed)), random)
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
            and min(np.sum(generated.labels == label), np.sum(real.labels == label)) >= FEWEST
        },
    )


def _curve(
    generated: Tensor, real: Tensor, floor: Floor | None, random: np.random.Generator
) -> list[CurvePoint]:
    def repeated(values: Tensor, reference: Tensor) -> list[float]:
        return [
            frechet_distance(subset(values, size, random), subset(reference, size, random))
            for _ in range(REPEATS)
        ]

    most = min(len(generated), len(real))
    points: list[CurvePoint] = []
    for size in sorted({most >> k for k in range(4) if most >> k >= FEWEST}):
        found, below = repeated(generated, real), None
        if floor is not None and min(len(floor.values), len(floor.reference)) >= size:
            below = float(np.mean(repeated(floor.values, floor.reference)))
        points.append(
            CurvePoint(
                volumes=size,
                generated=float(np.mean(found)),
                generated_sd=float(np.std(found)),
                floor=below,
            )
        )
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
