"""The floor: what other real volumes score, and what generated ones score at the same numbers."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prod9.evaluation.set_distance import neighbours
from prod9.metrics.frechet import frechet_distance
from prod9.results.distances import Neighbours

REPEATS = 5
"""A figure of random subsets is the mean over this many."""


@dataclass(frozen=True)
class Floor:
    """Real volumes against other real volumes; no more of them than were generated."""

    values: Tensor
    """(N, dimensions)."""
    reference: Tensor
    """(M, dimensions)."""
    name: str


def floor_of(
    count: int, real: Tensor, other: Tensor | None, other_name: str, random: np.random.Generator
) -> Floor | None:
    """Return ``count`` real volumes, or all, against others; None where there are too few.

    Args:
        count: number of generated volumes.
        real: the reference.
        other: real volumes that are not in ``real``; None: halves of ``real`` are compared.
        other_name: what they are.
        random: chooses.
    """
    if other is not None and len(other) > 1:
        count = min(count, len(other))
        return Floor(subset(other, count, random), real, f"{count} of {other_name}")
    half = len(real) // 2
    if half < 2:
        return None
    count = min(half, max(2, count))
    order = torch.from_numpy(random.permutation(len(real)))
    name = f"{count} real volumes against {len(real) - half} others of the same set"
    return Floor(real[order[:count]], real[order[half:]], name)


def frechet_ratio(generated: Tensor, floor: Floor, random: np.random.Generator) -> float | None:
    """Return the generated over the floor's distance, both of as many volumes.

    Against the same reference; the mean over random subsets where one set has more.
    """
    count = min(len(generated), len(floor.values))

    def mean(values: Tensor) -> float:
        parts = _subsets(values, count, random)
        return float(np.mean([frechet_distance(part, floor.reference) for part in parts]))

    if count < 2:
        return None
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
    return Neighbours.model_validate(
        {"volumes": count, "reference_volumes": len(floor.reference), **means}
    )


def _subsets(values: Tensor, count: int, random: np.random.Generator) -> list[Tensor]:
    """Return random subsets of ``count``; only one if that is all."""
    repeats = 1 if len(values) == count else REPEATS
    return [subset(values, count, random) for _ in range(repeats)]


def subset(values: Tensor, count: int, random: np.random.Generator) -> Tensor:
    """Return ``count`` rows, chosen at random, none twice."""
    return values[torch.from_numpy(random.choice(len(values), count, replace=False))]
