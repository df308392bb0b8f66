"""Segmenters, masks and doses: known figures, and generators whose faults are known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from labelled_model import SHAPE, VALUES, labelled_model
from scipy import stats

from prod9.config.evaluation import SegmentationConfig
from prod9.data.dataset import Channel, Dataset
from prod9.errors import Prod9Error
from prod9.evaluation import segmentation
from prod9.evaluation.segmentation import (
    dose_response,
    label_scores,
    label_volumes,
    measure_segmentation,
)
from prod9.evaluation.segmenter import Pair, train_segmenter
from prod9.label_codes import part_names
from prod9.results.schema import Segmentation

CHANNELS = (Channel("T1"), Channel("T2"), *(Channel(n, "labels") for n in part_names("seg")))
TINY = SegmentationConfig(
    pairs=6,
    seeds=1,
    steps=80,
    learning_rate=5e-3,
    widths=(8, 16),
    patch=(16, 16, 16),
    masks=4,
    doses=(-0.4, 0.5),
)


def test_dice_and_hausdorff_of_shapes_on_paper() -> None:
    truth, found = np.zeros((2, 8, 8, 8), np.uint16)
    truth[2, 2, 2] = 1
    found[2, 2, 5] = 1  # three voxels of 1.5 mm away
    truth[4:6, 4, 4] = 2
    found[4, 4, 4] = 2  # one of two voxels
    scores = label_scores(found, truth, 4, (1.0, 1.0, 1.5))
    assert scores[0].tolist() == [0, pytest.approx(4.5), 1]
    assert scores[1, 0] == pytest.approx(2 / 3)
    assert np.isnan(scores[2, :2]).all()  # not in the truth
    nothing = label_scores(found * 0, truth, 4, (1.0, 1.0, 1.5))
    assert scores[:, 2].tolist() == [1, 1, 0]
    assert nothing[:2, 0].tolist() == [0, 0]
    assert nothing[:2, 1] == pytest.approx(np.linalg.norm([8, 8, 12]))


def test_a_line_with_known_slope() -> None:
    requested = [1.0, 2.0, 3.0, 2.0, 4.0, 6.0]
    owners = [0, 0, 0, 1, 1, 1]
    exact = dose_response(1, owners, requested, [0.5 * x + 1 for x in requested])
    assert (exact.slope, exact.r2, exact.slope_within) == pytest.approx((0.5, 1, 0.5))
    assert exact.slope_interval == pytest.approx((0.5, 0.5))
    ignored = dose_response(1, owners, requested, [3.0] * 6)
    assert (ignored.slope, ignored.r2, ignored.slope_within) == (0, 0, 0)
    alike = dose_response(1, owners, [2.0] * 6, requested)
    assert (alike.slope, alike.r2, alike.slope_interval) == (None, None, None)


def test_a_line_against_scipy_and_subjects_that_differ_for_other_reasons() -> None:
    random = np.random.default_rng(0)
    owners = np.repeat(np.arange(30), 3)
    base, change = random.normal(10, 3, 30)[owners], np.tile([-1.0, 0.0, 1.0], 30)
    found = 2 * base + 0.2 * change + random.normal(0, 0.05, 90)
    got = dose_response(1, owners.tolist(), (base + change).tolist(), found.tolist())
    outside: Any = stats.linregress(base + change, found)
    assert got.slope == pytest.approx(outside.slope)
    assert got.r2 == pytest.approx(outside.rvalue**2)
    assert got.slope_within == pytest.approx(0.2, abs=0.02)
    assert got.slope_interval is not None
    assert got.slope_interval[0] < outside.slope < got.slope_interval[1]


def test_volumes_that_do_not_overlap() -> None:
    found = label_volumes(1, [1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0])
    assert found.kolmogorov_smirnov == 1
    assert found.p_value == pytest.approx(2 / 70)  # of 8 over 4 orders, two are as extreme


# --- a set of boxes, and generators of known faults ----------------------------------------------


def boxes(seed: int) -> np.ndarray:
    """Return a label map: a box of label 2 whose lower part is label 7."""
    random, array = np.random.default_rng(seed), np.zeros(SHAPE, np.int64)
    low = random.integers(1, 4, 3)
    size = random.integers(5, 8, 3)
    place = tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))
    array[place] = 2
    array[place[0], place[1], low[2] : low[2] + size[2] // 2] = 7
    return array


def shown(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return two images of a label map."""
    noise = np.random.default_rng(seed).normal(0, 0.03, (2, *labels.shape))
    grey = np.select([labels == 2, labels == 7], [0.5, 0.9], 0.1)
    return (np.stack([grey, 1 - grey]) + noise).clip(0, 1)


class Boxes(Dataset):
    def __init__(self, name: str, seeds: Sequence[int], said: list[str]) -> None:
        self.name, self.channels, self.shape = name, CHANNELS, SHAPE
        self.names = self.subjects = tuple(f"s{seed}" for seed in seeds)
        self.seeds, self.said, self.spacing_mm = seeds, said, (1.0, 1.0, 1.0)
        self.preprocessing = labelled_model().network.tokenizer.spec.preprocessing

    def crop(
        self, item: int, channel: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        self.said.append(f"read {self.name}")
        labels = boxes(self.seeds[item])
        if channel >= 2:
            return labels.astype(np.float32)
        return shown(labels, self.seeds[item])[channel].astype(np.float32)


def measured(monkeypatch: pytest.MonkeyPatch, heeds: bool, said: list[str]) -> Segmentation:
    """Measure a generator whose label maps are real, and whose images show a mask, or another."""

    def pairs(model: Any, request: Any, codes: Any, classes: Sequence[int], kept: Any) -> Any:
        found = []
        for number in range(len(classes)):
            own, other = boxes(100 + number), boxes(200 + number)
            indices = np.searchsorted(VALUES, own).astype(np.uint16)
            found.append(Pair(shown(own if heeds else other, number).astype(np.float16), indices))
        return found

    def images(model: Any, request: Any, mask: Any) -> np.ndarray:
        own = mask.stored.array
        return shown(own if heeds else boxes(300 + request.seed % 100), 0).astype(np.float16)

    def train(*given: Any, **more: Any) -> Any:
        said.append("train")
        return train_segmenter(*given, **more)

    monkeypatch.setattr(segmentation, "generated_pairs", pairs)
    monkeypatch.setattr(segmentation, "drawn_images", images)
    monkeypatch.setattr(segmentation, "train_segmenter", train)
    model = labelled_model()
    splits = {
        "train": Boxes("train", range(8), said),
        "val": Boxes("val", range(10, 12), said),
        "test": Boxes("test", range(20, 26), said),
    }
    return measure_segmentation(model.network, splits, model.generation, TINY)


def test_a_generator_that_heeds_its_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    found = measured(monkeypatch, heeds=True, said=said)
    last = len(said) - 1 - said[::-1].index("train")
    assert said.count("train") == 3
    assert "read test" not in said[:last]  # nor val, at any time
    assert {*said} == {"read train", "train", "read test"}
    assert [part.trained_on for part in found.segmenters] == [
        "real",
        "generated",
        "real + generated",
    ]
    assert [part.pairs for part in found.segmenters] == [6, 6, 12]
    for part in found.segmenters:
        assert [score.label for score in part.labels] == [2, 7]
        for score in part.labels:
            assert score.subjects == found.test_subjects == 6
            assert score.dice > 0.7
            assert score.dice_interval is not None
            assert score.dice_interval[0] <= score.dice <= score.dice_interval[1]
    for each in found.fidelity:
        assert each.subjects == 4
        assert each.dice > 0.7
        assert abs(each.lost) < 0.15
        assert each.lost == pytest.approx(each.ceiling - each.dice)
    for dose in found.doses:
        assert len(dose.requested) == 3 * dose.subjects == 12
        assert dose.slope is not None
        assert dose.slope_within is not None
        assert dose.slope_of_real is not None
        assert min(dose.slope, dose.slope_within) > 0.3
        assert dose.slope_of_real > 0.5
    assert all(len(each.real) == len(each.generated) == 6 for each in found.volumes)


def test_a_generator_that_does_not_heed_its_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, heeds=False, said=[])
    real, generated, _ = (part.labels for part in found.segmenters)
    for ours, theirs in zip(generated, real, strict=True):
        assert ours.dice < theirs.dice - 0.15
    for each in found.fidelity:
        assert each.lost > 0.25
    for dose in found.doses:
        assert dose.slope_within == pytest.approx(0, abs=0.1)


def test_what_the_model_itself_generates() -> None:
    """Of an untrained model nothing is right, but its pairs have images and known labels."""
    model = labelled_model()
    codes = model.network.tokenizer.spec.labels[0]
    pairs = segmentation.generated_pairs(
        model.network, model.generation, codes, [0] * 5, segmentation.WorkCache()
    )
    assert len(pairs) == 5
    assert all(pair.images.shape == (2, *SHAPE) for pair in pairs)
    assert all(pair.labels.shape == SHAPE and pair.labels.max() <= 2 for pair in pairs)
    assert not np.array_equal(pairs[0].labels, pairs[4].labels)


# --- the segmenter -------------------------------------------------------------------------------


def pair(seed: int) -> Pair:
    labels = boxes(seed)
    indices = np.searchsorted(VALUES, labels).astype(np.uint16)
    return Pair(shown(labels, seed).astype(np.float16), indices)


def test_the_same_seed_gives_the_same_segmenter_and_nothing_else_changes() -> None:
    config = TINY.model_copy(update={"steps": 2})
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    pairs = [pair(0), pair(1)]
    one, same, other = (train_segmenter(pairs, 3, config, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    weights = [torch.cat([p.flatten() for p in s.network.parameters()]) for s in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert one(pair(2).images).shape == SHAPE


def test_volumes_that_are_larger_and_smaller_than_a_crop() -> None:
    """Windows give the whole volume back, whatever its sides."""
    images, labels = np.zeros((1, 21, 9, 5), np.float16), np.zeros((21, 9, 5), np.uint16)
    labels[8:14, 2:7, 1:4] = 1
    images[0][labels == 1] = 1
    config = TINY.model_copy(update={"steps": 25, "patch": (10, 10, 10)})
    segmenter = train_segmenter([Pair(images, labels)], 2, config, seed=0)
    found = segmenter(images)
    assert found.shape == labels.shape
    assert (found == labels).mean() > 0.9


def test_without_monai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prod9.evaluation.segmenter.find_spec", lambda name: None)
    with pytest.raises(Prod9Error, match=r"pip install 'prod9\[segmentation\]'"):
        train_segmenter([pair(0)], 3, TINY, seed=0)
