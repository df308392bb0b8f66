"""Set distances beside their floor, on Gaussians whose distances are known."""

import numpy as np
import pytest
import torch

from prod9.evaluation.distances import MOST_FOR_INTERVAL, Features, distances, set_distance
from prod9.evaluation.feature_spaces import FeatureSpace

DIMENSIONS = 6
SPACE = FeatureSpace("efficientnet", "toy", DIMENSIONS, "0" * 64, lambda volumes: volumes)


def gaussian(count, shift=0.0, seed=0, classes=1):
    stream = torch.Generator().manual_seed(seed)
    values = torch.randn(count, DIMENSIONS, generator=stream, dtype=torch.float64)
    values[:, 0] += shift
    return Features(values, np.arange(count) % classes)


def measured(generated, real, other=None, classes=("a",)):
    others = None if other is None else Features(other.values, other.labels, "others")
    return distances(SPACE, generated, real, others, classes, seed=0)


def test_shifted_gaussian_is_at_its_known_distance():
    found = set_distance(gaussian(4000, 2.0).values, gaussian(4000, seed=1).values, seed=0)
    assert found.frechet == pytest.approx(4.0, abs=0.3)  # |shift|^2, equal covariances
    assert found.frechet_interval[0] < found.frechet < found.frechet_interval[1]
    assert found.kernel_interval[0] < found.kernel < found.kernel_interval[1]


def test_interval_never_says_a_distance_is_negative():
    found = set_distance(gaussian(40).values, gaussian(40, seed=1).values, seed=0)
    assert found.frechet_interval[0] >= 0


def test_few_volumes_have_no_interval_and_no_neighbourhoods():
    found = set_distance(gaussian(3).values, gaussian(3, seed=1).values, seed=0)
    assert found.frechet_interval is None
    assert found.kernel_interval is None
    assert (found.precision, found.density) == (None, None)
    found = set_distance(gaussian(5).values, gaussian(5, seed=1).values, seed=0)
    assert found.precision is not None  # k = 3
    assert found.coverage is None  # k = 5


def test_floor_has_as_many_volumes_as_the_generated_set():
    found = measured(gaussian(60, 1.0), gaussian(100, seed=1), gaussian(200, seed=2))
    assert found.floor.volumes == 60
    assert found.floor.reference_volumes == 100
    assert found.floor_of == "60 of others"
    assert found.floor.frechet < found.generated.frechet


def test_floor_without_other_real_volumes_is_of_halves():
    found = measured(gaussian(60), gaussian(101, seed=1))
    assert (found.floor.volumes, found.floor.reference_volumes) == (50, 51)
    assert found.floor_of == "50 real volumes against 51 others of the same set"
    assert measured(gaussian(20), gaussian(101, seed=1)).floor.volumes == 20


@pytest.mark.parametrize(("generated", "real", "others"), [(400, 400, None), (60, 400, 40)])
def test_ratio_is_one_for_equal_sources_whatever_the_numbers(generated, real, others):
    """Few volumes are far from everything: only equal numbers compare."""
    other = None if others is None else gaussian(others, seed=2)
    found = measured(gaussian(generated), gaussian(real, seed=1), other)
    assert 0.4 < found.frechet_ratio < 2.5
    far = measured(gaussian(generated, 3.0), gaussian(real, seed=1), other)
    assert far.frechet_ratio > 8


def test_neighbours_at_the_floor_are_those_of_all_where_numbers_are_equal():
    found = measured(gaussian(60, 1.0), gaussian(100, seed=1), gaussian(200, seed=2))
    keys = set(type(found.at_floor).model_fields)
    assert found.at_floor.model_dump() == found.generated.model_dump(include=keys)
    halves = measured(gaussian(60, 1.0), gaussian(100, seed=1))
    assert (halves.at_floor.volumes, halves.at_floor.reference_volumes) == (50, 50)


def test_no_floor_for_three_real_volumes():
    found = measured(gaussian(10), gaussian(3, seed=1))
    assert (found.floor, found.at_floor) == (None, None)


def test_curve_falls_to_the_known_limit():
    found = measured(gaussian(800, 3.0), gaussian(800, seed=1), gaussian(800, seed=2))
    assert [point.volumes for point in found.curve] == [100, 200, 400, 800]
    # The shift's own sampling error of one pair of sets does not go away with subsets.
    assert found.frechet_limit == pytest.approx(9.0, rel=0.12)
    assert found.stable
    floors = [point.floor for point in found.curve]
    assert floors == sorted(floors, reverse=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "m"), [(40, 40), (1000, 32), (1000, 100), (200, 200)])
def test_equal_distributions_are_never_called_stable(n, m, seed):
    found = measured(gaussian(n, seed=seed), gaussian(m, seed=seed + 10))
    assert not found.stable


def test_few_volumes_have_no_limit():
    found = measured(gaussian(12, 5.0), gaussian(100, seed=1))
    assert (found.frechet_limit, found.stable_from, found.stable) == (None, None, False)


def test_interval_of_large_sets_is_taken_around_their_own_distance():
    x, y = gaussian(4000, 2.0).values, gaussian(4000, seed=1).values
    found = set_distance(x, y, seed=0)
    assert found.frechet == pytest.approx(4, abs=0.3)
    assert found.frechet_interval[0] < found.frechet < found.frechet_interval[1]
    few = set_distance(x[:MOST_FOR_INTERVAL], y[:MOST_FOR_INTERVAL], seed=0).frechet_interval
    # That of as many vectors as an interval is computed from: too wide rather than too narrow.
    assert np.ptp(found.frechet_interval) == pytest.approx(np.ptp(few), rel=0.3)


def test_classes_are_compared_with_their_own():
    """Class b is shifted in the generated set, class a is not."""
    generated, real = gaussian(80, classes=2), gaussian(80, seed=1, classes=2)
    generated.values[generated.labels == 1, 1] += 5
    found = measured(generated, real, classes=("a", "b")).per_class
    assert found["b"].frechet == pytest.approx(25, rel=0.2)
    assert found["a"].frechet < 3


def test_small_classes_have_no_distance():
    generated, real = gaussian(20, classes=4), gaussian(80, seed=1, classes=4)
    assert measured(generated, real, classes=tuple("abcd")).per_class == {}


def test_seed_decides():
    args = gaussian(60, 1.0), gaussian(60, seed=1), gaussian(60, seed=2)
    assert measured(*args) == measured(*args)
    other = distances(SPACE, *args, ("a",), seed=1)
    assert other.curve != measured(*args).curve


def test_reconstructions_stand_beside_as_many():
    """Each real volume, moved by one along an axis: a distance of one, at equal numbers."""
    real = gaussian(400, seed=1)
    moved = real.values + torch.eye(DIMENSIONS, dtype=torch.float64)[2]
    args = SPACE, gaussian(300, seed=2), real, None, ("a",)
    found = distances(*args, seed=0, reconstructed=moved)
    assert (found.reconstructed.volumes, found.reconstructed.reference_volumes) == (300, 400)
    assert found.reconstructed.frechet == pytest.approx(1, abs=0.25)
    # The rest stays.
    without = distances(*args, seed=0)
    assert without.reconstructed is None
    assert found.model_copy(update={"reconstructed": None}) == without
