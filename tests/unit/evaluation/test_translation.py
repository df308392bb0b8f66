import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.exposure import match_histograms

from prod9.data.array_dataset import ArrayDataset
from prod9.data.dataset import Channel
from prod9.evaluation.translation import (
    evaluate_translation,
    foreground_of,
    matched_histogram,
    mean_volume,
)
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import ssim

SHAPE = (14, 16, 13)
NAMES = ("A", "B", "C")
HALF = 2**-10
"""Values are multiples of it, which half precision keeps exactly."""


def scan_set(heads: Sequence[np.ndarray]) -> ArrayDataset:
    """Return items whose heads (C, d, h, w) lie in the middle of the grid."""
    images = np.zeros((len(heads), len(NAMES), *SHAPE), np.float32)
    for image, head in zip(images, heads, strict=True):
        first = [(side - n) // 2 for side, n in zip(SHAPE, head.shape[1:], strict=True)]
        box = tuple(slice(f, f + n) for f, n in zip(first, head.shape[1:], strict=True))
        image[(slice(None), *box)] = head
    return ArrayDataset("scans", images, tuple(Channel(name) for name in NAMES))


def random_heads(count: int, seed: int) -> list[np.ndarray]:
    """Return heads of voxels from 1/1024 to 1; a corner of modality 0 is background in it alone."""
    random = np.random.default_rng(seed)
    heads = [random.integers(1, 1025, (3, 10, 12, 9)) * HALF for _ in range(count)]
    for head in heads:
        head[0, :3, :3] = 0
    return heads


@pytest.fixture
def train() -> ArrayDataset:
    return scan_set(random_heads(3, 0))


@pytest.fixture
def test() -> ArrayDataset:
    return scan_set(random_heads(2, 1))


def same(volume: np.ndarray) -> np.ndarray:
    return volume


# --- the rivals ---------------------------------------------------------------------------------


@given(count=st.integers(1, 300), seed=st.integers(0, 9999))
def test_a_matched_histogram_is_that_of_scikit_image(count, seed):
    random = np.random.default_rng(seed)
    source = random.permutation(count) * 0.7 + 3
    reference = np.unique(random.standard_normal(2 * count))[:count]
    random.shuffle(reference)
    ours = matched_histogram(source, reference)
    np.testing.assert_allclose(ours, match_histograms(source, reference), rtol=0, atol=1e-9)
    # Rank by rank: the values are the reference's, in the source's order.
    np.testing.assert_allclose(ours[np.argsort(source)], np.sort(reference), rtol=0, atol=1e-9)


def test_a_histogram_matched_to_itself_is_itself() -> None:
    values = np.random.default_rng(0).random(501).astype(np.float32)
    np.testing.assert_allclose(matched_histogram(values, values), values, rtol=0, atol=1e-6)
    assert matched_histogram(values, values).dtype == np.float32
    # Any rising curve of a volume is matched back to it.
    np.testing.assert_allclose(matched_histogram(values**3, values), values, rtol=0, atol=1e-6)


def test_the_mean_of_scans(train: ArrayDataset) -> None:
    expected = train.images[:, 1].astype(np.float64).sum(0)
    mean = mean_volume(train, 1)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, expected / 3, rtol=0, atol=1e-7)


def test_the_foreground_is_where_any_modality_is_something(test: ArrayDataset) -> None:
    expected = np.zeros(SHAPE, bool)
    expected[2:12, 2:14, 2:11] = True
    assert np.array_equal(foreground_of(test, 0), expected)


# --- the measurement ----------------------------------------------------------------------------


def truth_teller(test: ArrayDataset, target: int) -> Any:
    """Return a draw that gives what is there."""

    def draw(item: int, sources: Sequence[int]) -> np.ndarray:
        return test.whole(item, target)

    return draw


def test_who_draws_the_truth_has_no_error(train: ArrayDataset, test: ArrayDataset) -> None:
    metrics = evaluate_translation(
        train, test, range(len(test)), 2, [[0], [0, 1]], truth_teller(test, 2), same
    )
    assert (metrics.target, metrics.scans) == ("C", 2)
    assert list(metrics.drawn) == ["A", "A+B"]
    assert list(metrics.matched) == ["A", "B"]
    for score in (*metrics.drawn.values(), metrics.ceiling):
        assert score.psnr == math.inf
        assert score.psnr_per_scan == (math.inf, math.inf)
        assert score.ssim == pytest.approx(1, abs=1e-12)
    for score in (*metrics.matched.values(), metrics.mean):
        assert score.psnr < 20
        assert score.ssim < 0.5


def test_rivals_by_hand(train: ArrayDataset, test: ArrayDataset) -> None:
    metrics = evaluate_translation(
        train, test, range(len(test)), 2, [[1]], truth_teller(test, 2), same
    )
    inside = np.zeros(SHAPE, bool)
    inside[2:12, 2:14, 2:11] = True
    by_mean: list[float] = []
    by_rank: list[float] = []
    for index in range(2):
        truth, source = test.whole(index, 2), test.whole(index, 1)
        mean = np.mean([train.whole(i, 2) for i in range(3)], 0)
        by_mean.append(10 * np.log10(1 / np.mean((mean - truth)[inside] ** 2)))
        ordered = np.empty(inside.sum())
        ordered[np.argsort(source[inside], kind="stable")] = np.sort(truth[inside])
        by_rank.append(10 * np.log10(1 / np.mean((ordered - truth[inside]) ** 2)))
    assert metrics.mean.psnr_per_scan == pytest.approx(by_mean, rel=1e-5)
    assert metrics.mean.psnr == pytest.approx(np.mean(by_mean), rel=1e-5)
    assert metrics.matched["B"].psnr_per_scan == pytest.approx(by_rank, rel=1e-5)
    assert metrics.matched["B"].psnr == pytest.approx(np.mean(by_rank), rel=1e-5)


def test_only_the_foreground_counts(train: ArrayDataset, test: ArrayDataset) -> None:

    def half_off(item: int, sources: Sequence[int]) -> np.ndarray:
        # Off by 1/8 in the head, and by much more around it.
        drawn = test.whole(item, 2)
        return np.where(drawn > 0, drawn + np.float32(0.125), np.float32(0.9))

    metrics = evaluate_translation(
        train, test, range(len(test)), 2, [[0]], half_off, lambda v: v + np.float32(0.125)
    )
    expected = 10 * math.log10(64)
    assert metrics.drawn["A"].psnr_per_scan == pytest.approx((expected, expected), rel=1e-6)
    assert metrics.ceiling.psnr == pytest.approx(expected, rel=1e-6)
    # SSIM looks at windows: what lies outside is set to what everybody knows, and its centres
    # do not count.
    inside = torch.from_numpy(foreground_of(test, 0))[None, None]
    truth = torch.from_numpy(test.whole(0, 2))[None, None]
    by_hand = ssim((truth + 0.125) * inside, truth, mask=inside)
    assert metrics.drawn["A"].ssim_per_scan[0] == pytest.approx(float(by_hand), abs=1e-9)
    assert float(psnr((truth + 0.125) * inside, truth)) > expected + 3


def test_a_target_may_be_dark_where_another_modality_is_not(
    train: ArrayDataset, test: ArrayDataset
) -> None:
    # A corner of A is 0 inside the head. To draw something there is an error.
    def bright(item: int, sources: Sequence[int]) -> np.ndarray:
        drawn = test.whole(item, 0)
        return np.where(drawn == 0, np.float32(0.5), drawn)

    metrics = evaluate_translation(train, test, range(len(test)), 0, [[1, 2]], bright, same)
    share = (3 * 3 * 9) / (10 * 12 * 9)
    assert metrics.drawn["B+C"].psnr == pytest.approx(-10 * math.log10(0.25 * share), rel=1e-6)


def test_each_set_of_sources_is_asked_for_once_an_item(
    train: ArrayDataset, test: ArrayDataset
) -> None:
    asked: list[tuple[int, list[int]]] = []

    def draw(item: int, sources: Sequence[int]) -> np.ndarray:
        asked.append((item, [*sources]))
        return np.zeros(SHAPE, np.float32)

    evaluate_translation(train, test, range(len(test)), 1, [[0], [2], [0, 2]], draw, same)
    assert asked == [(item, sources) for item in range(2) for sources in ([0], [2], [0, 2])]
