"""Changed copies of items, as Stage 2 encodes them."""

import numpy as np

from prod9.config.data import SpatialAugmentationConfig
from prod9.data.array_dataset import ArrayDataset
from prod9.data.augmented import AugmentedDataset
from prod9.data.dataset import Channel, Covariate, LabelVolume

SHAPE = (9, 8, 7)
CHANGE = SpatialAugmentationConfig(rotation_deg=5, deformation_mm=1, intensity_scale=0.1)


def base() -> ArrayDataset:
    images = np.random.default_rng(0).random((3, 2, *SHAPE), dtype=np.float32)
    images[:, 1] = images[:, 0]  # the same in both channels: what moves one moves the other
    return ArrayDataset(
        "d",
        images,
        (Channel("a"), Channel("b")),
        classes=np.array([0, 1, 0]),
        class_names=("x", "y"),
        subjects=("p", "q", "r"),
    )


def test_version_0_is_the_item_and_others_differ() -> None:
    data = AugmentedDataset(base(), CHANGE, 4, seed=1)
    assert len(data) == 12
    assert len({*data.names}) == 12
    for item in range(3):
        assert np.array_equal(data.whole(item * 4, 0), base().whole(item, 0))
        for version in range(1, 4):
            apart = np.abs(data.whole(item * 4 + version, 0) - base().whole(item, 0)).mean()
            assert 0.01 < apart < 0.5
    assert data.subjects == ("p",) * 4 + ("q",) * 4 + ("r",) * 4
    assert [data.class_of(item) for item in range(12)] == [0] * 4 + [1] * 4 + [0] * 4


def test_the_same_seed_gives_the_same_copies() -> None:
    first, again, other = (AugmentedDataset(base(), CHANGE, 3, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.whole(4, 1), again.whole(4, 1))
    assert not np.array_equal(first.whole(4, 1), other.whole(4, 1))
    assert first.digest == again.digest
    assert first.digest != other.digest
    assert first.digest != AugmentedDataset(base(), CHANGE, 4, seed=1).digest


def test_channels_move_together() -> None:
    change = SpatialAugmentationConfig(rotation_deg=20, zoom=0.1, deformation_mm=2)
    data = AugmentedDataset(base(), change, 2, seed=0)
    assert np.array_equal(data.whole(1, 0), data.whole(1, 1))


def test_a_mask_is_mirrored_with_its_image_and_keeps_its_numbers() -> None:
    images = np.random.default_rng(0).integers(0, 3, (1, 2, *SHAPE)).astype(np.float32)
    images[:, 0] = images[:, 1] / 4 + 0.25
    channels = (Channel("image"), Channel("mask", "labels"))
    pair = ArrayDataset("pair", images, channels, flips=[(0, 1, 2)])
    change = SpatialAugmentationConfig(flip=True, intensity_scale=0.1)
    data = AugmentedDataset(pair, change, 10, seed=0)
    mirrored = 0
    for version in range(1, 10):
        image, mask = data.whole(version, 0), data.whole(version, 1)
        assert set(mask.ravel().tolist()) == {0.0, 1.0, 2.0}
        assert np.corrcoef(image.ravel(), mask.ravel())[0, 1] > 0.9
        mirrored += not np.array_equal(mask, images[0, 1])
    assert mirrored >= 5


def test_the_volume_of_a_label_is_that_of_the_copy() -> None:
    """A zoom changes it, a mirror does not; what else is known of the item stays."""
    images = np.zeros((2, 2, 12, 12, 12), np.float32)
    images[:, 1, 3:9, 3:9, 3:9] = 1
    data = ArrayDataset(
        "pairs",
        images,
        (Channel("image"), Channel("mask", "labels")),
        covariates=(Covariate("age"), Covariate("volume:1")),
        values=[(60.0, 0.216 * 8), (None, 0.216 * 8)],
        spacing_mm=(2.0, 2.0, 2.0),
        flips=[(0, 1, 2)],
    )
    data.label_volumes = (LabelVolume(1, 1, 1),)
    zoomed = AugmentedDataset(data, SpatialAugmentationConfig(zoom=0.3), 4, seed=0)
    for item in range(len(zoomed)):
        age, volume = zoomed.covariates_of(item)
        assert age == (60.0 if item < 4 else None)
        assert volume == (zoomed.whole(item, 1) == 1).sum() * 0.008
    assert len({zoomed.covariates_of(item)[1] for item in range(4)}) > 1
    mirrored = AugmentedDataset(data, SpatialAugmentationConfig(flip=True), 4, seed=0)
    assert {mirrored.covariates_of(item)[1] for item in range(8)} == {0.216 * 8}
