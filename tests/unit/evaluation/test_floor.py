"""Generated volumes are held against the floor at its own numbers, on sets of known coverage."""

import numpy as np
import pytest
import torch

from prod9.evaluation.distances import Features, Floor, at_floor, floor_of, neighbours
from prod9.results.schema import Neighbours


def drawn(count: int, random: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(random.standard_normal((count, 3)))


def coverage_of_equals(count: int, reference: int, k: int = 5) -> float:
    """Return the coverage that two samples of one distribution have on average, in any dimension.

    A real vector is missed if its k nearest of all others are real: all orders are equally likely.
    """
    nearest = np.arange(k)
    return float(1 - np.prod((reference - 1 - nearest) / (reference - 1 + count - nearest)))


@pytest.mark.parametrize(
    ("generated", "real", "others", "numbers"),
    [
        (400, 300, 40, (40, 300)),  # fewer others than generated ones
        (60, 600, None, (60, 300)),  # halves: a smaller reference
        (90, 90, None, (45, 45)),  # as many of both
    ],
)
def test_coverage_is_compared_at_equal_numbers(
    generated: int, real: int, others: int | None, numbers: tuple[int, int]
) -> None:
    fair, floors, whole = [], [], []
    for seed in range(30):
        random = np.random.default_rng(seed)
        ours, theirs = drawn(generated, random), drawn(real, random)
        other = None if others is None else drawn(others, random)
        known = None if other is None else Features(other, np.zeros(len(other)), "others")
        floor = floor_of(generated, theirs, known, random)
        assert floor is not None
        found = at_floor(ours, floor, seed)
        assert found is not None
        assert (found.volumes, found.reference_volumes) == numbers
        assert (len(floor.values), len(floor.reference)) == numbers
        fair.append(found.coverage)
        floors.append(neighbours(floor.values, floor.reference).coverage)
        whole.append(neighbours(ours, theirs).coverage)
    wanted, other_numbers = coverage_of_equals(*numbers), coverage_of_equals(generated, real)
    assert np.mean(fair) == pytest.approx(wanted, abs=0.03)
    assert np.mean(floors) == pytest.approx(wanted, abs=0.03)
    assert np.mean(whole) == pytest.approx(other_numbers, abs=0.03)
    if generated != real:  # what would be blamed on the generator, or hidden
        assert abs(other_numbers - wanted) > 0.2


def on_a_line(*places: float) -> torch.Tensor:
    return torch.tensor([[float(place)] for place in places], dtype=torch.float64)


def test_all_are_taken_once_where_numbers_are_equal() -> None:
    """Four and four on a line; the balls of four reach to the farthest of their own (k = 3)."""
    reference = on_a_line(0, 1, 2, 3)  # reach 3, 2, 2, 3
    floor = Floor(on_a_line(0.5, 1.5, 2.5, 3.5), reference, "others")
    found = at_floor(on_a_line(2.5, 5.5, 9, 12), floor, seed=0)
    # Within real balls: 2.5 and 5.5. Real ones within the generated balls (reach 9.5, 6.5, 6.5,
    # 9.5): all. Density and coverage need more than five.
    assert found == Neighbours(
        volumes=4, reference_volumes=4, precision=0.5, recall=1.0, density=None, coverage=None
    )


def test_of_more_the_mean_over_subsets_is_taken() -> None:
    """Four of five: a subset's precision is 1 without the far one, and 3/4 with it."""
    floor = Floor(on_a_line(0.5, 1.5, 2.5, 3.5), on_a_line(0, 1, 2, 3), "others")
    generated = on_a_line(0.5, 1.5, 2, 2.5, 100)
    found = [at_floor(generated, floor, seed) for seed in range(100)]
    precisions = [part.precision or 0 for part in found if part is not None]
    # The far one is in four of five subsets; five subsets a mean, in steps of 1/20.
    assert np.mean(precisions) == pytest.approx(0.8 * 0.75 + 0.2, abs=0.02)
    assert {round(20 * value, 9) for value in precisions} <= {15, 16, 17, 18, 19, 20}
    assert len({*precisions}) > 1
    assert at_floor(generated, floor, seed=3) == found[3]


def test_fewer_than_the_floor_are_not_compared() -> None:
    floor = Floor(on_a_line(0, 1), on_a_line(2, 3, 4), "others")
    assert at_floor(on_a_line(0), floor, seed=0) is None
