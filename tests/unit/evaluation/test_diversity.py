"""MS-SSIM within classes."""

import itertools

import numpy as np
import pytest
import torch

from prod9.data.volume_sets.volume_set import of_tensor
from prod9.evaluation.diversity import averaged_down, flat_voxels, within_class_msssim
from prod9.metrics.ssim import ms_ssim
from prod9.results.schema import MOST

SIDE = 12


def volumes(count, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, SIDE, SIDE, SIDE, generator=stream)


def collection(tensor, labels, names=("a", "b")):
    return of_tensor(tensor, torch.as_tensor(labels), names, "toy")


def test_mean_over_all_pairs_of_a_class_then_over_classes():
    drawn, labels = volumes(8), [0, 0, 0, 0, 1, 1, 1, 1]
    found = within_class_msssim(collection(drawn, labels), seed=0)
    expected = {}
    for name, members in (("a", [0, 1, 2, 3]), ("b", [4, 5, 6, 7])):
        pairs = itertools.combinations(members, 2)
        scores = [float(ms_ssim(drawn[i][None], drawn[j][None])) for i, j in pairs]
        expected[name] = np.mean(scores)
    assert found.per_class == pytest.approx(expected)
    assert found.mean == pytest.approx(np.mean(list(expected.values())))
    assert found.interval[0] <= found.mean <= found.interval[1]
    # Only some of the classes.
    one = within_class_msssim(collection(drawn, labels), seed=0, classes={"b"})
    assert one.mean == pytest.approx(expected["b"])


def test_one_volume_again_and_again_has_no_variety():
    same = volumes(1).expand(5, -1, -1, -1, -1)
    found = within_class_msssim(collection(same, [0] * 5), seed=0)
    assert found.mean == pytest.approx(1)
    assert found.interval == pytest.approx((1, 1))


def test_pairs_across_classes_do_not_count():
    drawn = torch.cat(
        [volumes(1).expand(3, -1, -1, -1, -1), volumes(1, 1).expand(3, -1, -1, -1, -1)]
    )
    assert within_class_msssim(collection(drawn, [0] * 3 + [1] * 3), seed=0).mean == pytest.approx(
        1
    )


def test_classes_of_one_volume_are_left_out():
    assert within_class_msssim(collection(volumes(2), [0, 1]), seed=0) is None
    found = within_class_msssim(collection(volumes(3), [0, 0, 1]), seed=0)
    assert list(found.per_class) == ["a"]
    assert found.interval is None  # of one pair, nothing can be said


def test_volumes_too_thin_for_a_window_have_none():
    assert within_class_msssim(collection(volumes(4)[..., :4], [0] * 4), seed=0) is None


def test_large_classes_are_sampled_evenly():
    count = 3 * MOST
    drawn = volumes(count)
    found = within_class_msssim(collection(drawn, [0] * count), seed=0)
    chosen = drawn[np.linspace(0, count - 1, MOST).astype(int)]
    again = within_class_msssim(collection(chosen, [0] * MOST), seed=0)
    assert found.mean == pytest.approx(again.mean)


def test_seed_decides_the_interval_alone():
    toy = collection(volumes(8), [0] * 4 + [1] * 4)
    one, same, other = (within_class_msssim(toy, seed) for seed in (0, 0, 1))
    assert one == same
    assert one.mean == other.mean
    assert one.interval != other.interval


def test_averaging_down():
    volume = torch.arange(2 * 5 * 4, dtype=torch.float32).reshape(1, 1, 2, 5, 4)
    assert averaged_down(volume, 5) is volume
    small = averaged_down(volume, 3)
    assert small.shape == (1, 1, 1, 3, 2) or small.shape == (1, 1, 2, 3, 2)
    assert small[0, 0, 0, 0, 0] == pytest.approx(float(volume[0, 0, :1, :2, :2].mean()))
    # The last block of an odd side holds what is left, not zeros.
    assert small[0, 0, 0, 2, 0] == pytest.approx(float(volume[0, 0, :1, 4:, :2].mean()))


def test_flat_voxels_are_the_volumes():
    drawn = volumes(20)
    assert torch.equal(flat_voxels(collection(drawn, [0] * 20)), drawn.flatten(1))
    assert flat_voxels(collection(drawn, [0] * 20), largest=6).shape == (20, 6**3)
