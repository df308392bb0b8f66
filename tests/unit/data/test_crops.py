"""Training volumes of Stage 1 over any data set: order, places, changes."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prod9.config import BraTSDataConfig, MedMNISTDataConfig
from prod9.config.data import AugmentationConfig
from prod9.data.array_dataset import ArrayDataset
from prod9.data.batches import BatchKey, set_epoch
from prod9.data.brats.dataset import BraTSDataset
from prod9.data.brats.layouts import MODALITIES
from prod9.data.crops import Batch, VolumeCrops, augment, crop_start, volume_loader
from prod9.data.dataset import Channel
from prod9.errors import Prod9Error


class Alike(ArrayDataset):
    """Two items whose four channels are copies, every voxel of a box of which differs."""

    channels = BraTSDataset.channels

    def __init__(self) -> None:
        images = np.zeros((2, 4, 20, 18, 12), np.float32)
        self.boxes: list[Any] = []
        for image, sides, low in zip(
            images, ((12, 10, 8), (6, 14, 9)), ((4, 3, 2), (8, 1, 1)), strict=True
        ):
            high = np.array(low) + sides
            ramp = ((np.arange(np.prod(sides)) + 1) / 2048).reshape(sides)
            image[(slice(None), *map(slice, low, high))] = ramp
            self.boxes.append((np.array(low), high))
        super().__init__("alike", images, self.channels, names=["scan0", "scan1"], flips=[(0,)])

    def box(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        return self.boxes[item]


@pytest.fixture(scope="module")
def alike() -> Alike:
    return Alike()


def config(**change: Any) -> BraTSDataConfig:
    return BraTSDataConfig(dataset_name="brats", batch_size=3, **change)


FLIPS = AugmentationConfig(flip=True)
ALL_CHANGES = AugmentationConfig(flip=True, intensity_scale=0.2, intensity_shift=0.05)


def crops_of(
    alike: Alike, *, train: bool = True, seed: int = 0, roi: Any = (5, 6, 4), **change: Any
) -> VolumeCrops:
    return VolumeCrops(alike, config(**change), roi, train=train, seed=seed)


def everything(crops: VolumeCrops, epoch: int = 0) -> Any:
    return crops[BatchKey(epoch, list(range(len(crops))))]


def test_the_items_are_scans_then_repetitions_then_modalities(alike: Alike) -> None:
    crops = crops_of(alike, crops_per_volume=2)
    batch = everything(crops)
    assert len(crops) == 2 * 2 * 4
    assert batch.volumes.shape == (16, 1, 5, 6, 4)
    assert batch.volumes.dtype == torch.float32
    assert batch.labels.tolist() == [0, 1, 2, 3] * 4
    assert batch.names == [f"scan{s}/{m}" for s in range(2) for _ in range(2) for m in MODALITIES]
    assert len(crops_of(alike, train=False, crops_per_volume=2)) == 2 * 4


def test_modalities_of_a_scan_share_place_and_mirror_image(alike: Alike) -> None:
    crops = crops_of(alike, crops_per_volume=3, augmentation=FLIPS)
    mirrored: list[bool] = []
    for epoch in range(10):
        groups = everything(crops, epoch).volumes.view(2, 3, 4, 5, 6, 4)
        assert torch.equal(groups, groups[:, :, :1].expand_as(groups))
        for scan, repetitions in enumerate(groups[:, :, 0]):
            for crop in repetitions:
                found = [
                    turned
                    for turned in (False, True)
                    if is_part(crop.flip(0) if turned else crop, alike.whole(scan, 0))
                ]
                assert len(found) == 1
                mirrored += found
    # Left and right change places in about half of the crops, up and down or front and back never.
    assert 20 <= sum(mirrored) <= 40


def is_part(crop: torch.Tensor, whole: np.ndarray) -> bool:
    """Say whether a crop with at least one voxel of the box occurs in the whole."""
    value = float(crop.max())
    assert value > 0
    first = np.argwhere(whole == value)[0] - np.argwhere(crop.numpy() == value)[0]
    stop = first + np.array(crop.shape)
    if (first < 0).any() or (stop > whole.shape).any():
        return False
    part = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
    return np.array_equal(whole[part], crop.numpy())


def test_intensities_change_by_themselves_in_each_modality(alike: Alike) -> None:
    still = everything(crops_of(alike, augmentation=FLIPS)).volumes
    moved = everything(crops_of(alike, augmentation=ALL_CHANGES)).volumes
    assert not any(torch.equal(moved[0], moved[m]) for m in (1, 2, 3))
    for one, other in zip(still, moved, strict=True):
        # The same place and mirror image: a straight line, up to the clip at 0 and 1.
        inside = (other > 0) & (other < 1)
        assert np.corrcoef(one[inside], other[inside])[0, 1] > 0.9999


def test_places_depend_on_seed_epoch_and_repetition(alike: Alike) -> None:
    def drawn(seed: int = 0, epoch: int = 0) -> torch.Tensor:
        return everything(crops_of(alike, seed=seed, crops_per_volume=8), epoch).volumes

    assert torch.equal(drawn(), drawn())
    assert not torch.equal(drawn(), drawn(epoch=1))
    assert not torch.equal(drawn(), drawn(seed=1))
    assert len(torch.unique(drawn().view(2, 8, 4, -1)[0, :, 0], dim=0)) > 1
    # An item is the same in whatever batch it comes.
    crops = crops_of(alike)
    pair = crops[BatchKey(3, [6, 1])].volumes
    assert torch.equal(pair, everything(crops, 3).volumes[[6, 1]])


def test_validation_stays_as_it_is(alike: Alike) -> None:
    plain = crops_of(alike, train=False)
    changed = crops_of(alike, train=False, augmentation=ALL_CHANGES, crops_per_volume=3)
    first = everything(plain, 0).volumes
    assert torch.equal(first, everything(plain, 5).volumes)
    assert torch.equal(first, everything(changed, 5).volumes)
    for scan, crop in enumerate(first[::4, 0]):
        assert is_part(crop, alike.whole(scan, 0))


def test_a_roi_larger_than_the_scans_is_the_scan(alike: Alike) -> None:
    crops = crops_of(alike, roi=(64, 6, 64))
    assert crops.roi == (20, 6, 12)
    assert everything(crops).volumes.shape[2:] == (20, 6, 12)


@given(
    low=st.tuples(*[st.integers(0, 12)] * 3),
    size=st.tuples(*[st.integers(1, 8)] * 3),
    roi=st.tuples(*[st.integers(1, 9)] * 3),
    seed=st.integers(0, 10_000),
)
def test_foreground_crops_have_their_middle_in_the_box(low, size, roi, seed):
    sides = (20, 20, 20)
    high = np.array(low) + size
    random = np.random.default_rng(seed)
    start = np.array(crop_start(random, sides, roi, (np.array(low), high), 1.0))
    room = np.array(sides) - roi
    assert ((start >= 0) & (start <= room)).all()
    # Unless the grid's border keeps a crop from getting there, its middle voxel is in the box.
    middle = start + np.array(roi) // 2
    at_border = (start == 0) | (start == room)
    assert (((middle >= low) & (middle < high)) | at_border).all()


def test_foreground_crops_reach_all_of_the_box_and_others_all_of_the_grid() -> None:
    box = (np.array([8, 8, 8]), np.array([12, 11, 9]))

    def starts(foreground: float, roi: int) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        found = np.array(
            [crop_start(random, (20, 20, 20), (roi,) * 3, box, foreground) for _ in range(3000)]
        )
        return [np.bincount(column, minlength=20) / 3000 for column in found.T]

    for roi in (4, 5):
        for shares, low, high in zip(starts(1.0, roi), *box, strict=True):
            first = low - roi // 2
            expected = np.zeros(20)
            expected[first : first + high - low] = 1 / (high - low)
            np.testing.assert_allclose(shares, expected, atol=0.04)
    for shares in starts(0.0, 4):  # 17 places, the last one too
        np.testing.assert_allclose(shares[:17], 1 / 17, atol=0.02)
    mixed = starts(0.5, 4)[2]
    assert mixed[6] == pytest.approx(0.5 + 0.5 / 17, abs=0.04)


@pytest.mark.parametrize("train", [True, False])
def test_workers_change_nothing(alike: Alike, train: bool) -> None:
    here, there = (
        volume_loader(
            alike,
            config(augmentation=ALL_CHANGES, crops_per_volume=2, num_workers=workers),
            (5, 6, 4),
            train=train,
            seed=4,
        )
        for workers in (0, 1)
    )
    for epoch in (0, 1):
        set_epoch(here, epoch)
        set_epoch(there, epoch)
        for one, other in zip(here, there, strict=True):
            assert one.names == other.names
            assert torch.equal(one.volumes, other.volumes)
            assert torch.equal(one.labels, other.labels)


# --- whole volumes ------------------------------------------------------------------------------


def toy(count: int = 10, flips: tuple[int, ...] = (0, 1, 2)) -> ArrayDataset:
    random = np.random.default_rng(3)
    return ArrayDataset(
        "toy",
        random.integers(0, 256, (count, 1, 3, 4, 5), dtype=np.uint8),
        names=[f"toy/{i}" for i in range(count)],
        classes=np.arange(count) % 2,
        class_names=("sided", "free"),
        flips=((), flips),
    )


def whole(
    data: ArrayDataset,
    augmentation: AugmentationConfig | None = None,
    seed: int = 0,
    train: bool = True,
) -> VolumeCrops:
    section = MedMNISTDataConfig(
        dataset_name="organmnist3d", augmentation=augmentation or AugmentationConfig()
    )
    return VolumeCrops(data, section, (2, 2, 2), train=train, seed=seed)


def whole_loader(count: int, *, train: bool, seed: int = 0, **settings: Any) -> Any:
    section = MedMNISTDataConfig(dataset_name="organmnist3d", **settings)
    return volume_loader(toy(count), section, (2, 2, 2), train=train, seed=seed)


def epoch_of(loader: Any, epoch: int) -> list[Batch]:
    set_epoch(loader, epoch)
    return list(loader)


def names(parts: list[Batch]) -> list[str]:
    return [name for batch in parts for name in batch.names]


def test_a_batch_is_the_voxels_over_255() -> None:
    volumes = toy()
    batch = whole(volumes)[BatchKey(0, [7, 2])]
    expected = torch.from_numpy(volumes.images[[7, 2]]).float() / 255
    assert batch.volumes.dtype == torch.float32
    assert torch.equal(batch.volumes, expected)
    assert batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [1, 0]
    assert batch.names == ["toy/7", "toy/2"]


def test_evaluation_keeps_the_order_and_every_volume() -> None:
    parts = list(whole_loader(10, batch_size=4, train=False))
    assert [len(part.names) for part in parts] == [4, 4, 2]
    assert names(parts) == [f"toy/{i}" for i in range(10)]


def test_training_shuffles_and_drops_the_last_short_batch() -> None:
    train = whole_loader(10, batch_size=4, train=True)
    parts = list(train)
    assert [len(part.names) for part in parts] == [4, 4]
    assert len(train) == 2
    assert len(set(names(parts))) == 8
    assert names(parts) != sorted(names(parts))


def test_fewer_volumes_than_a_batch_are_one_batch() -> None:
    parts = list(whole_loader(3, batch_size=4, train=True))
    assert [len(part.names) for part in parts] == [3]


def test_augmentation_is_drawn_from_seed_epoch_and_volume() -> None:
    volumes = toy()

    def draw(seed: int, epoch: int, indices: list[int]) -> torch.Tensor:
        return whole(volumes, ALL_CHANGES, seed)[BatchKey(epoch, indices)].volumes

    assert torch.equal(draw(0, 1, [3, 5]), draw(0, 1, [5, 3]).flip(0))  # not of the batch
    assert not torch.equal(draw(0, 1, [3]), draw(0, 2, [3]))
    assert not torch.equal(draw(0, 1, [3]), draw(1, 1, [3]))


def test_the_data_set_can_be_sent_to_a_spawned_worker() -> None:
    dataset = pickle.loads(pickle.dumps(whole(toy(), ALL_CHANGES, 1)))
    key = BatchKey(2, [1, 2, 3])
    expected = whole(toy(), ALL_CHANGES, 1)[key]
    assert torch.equal(dataset[key].volumes, expected.volumes)


def test_flips_are_the_allowed_ones_and_all_of_them_occur() -> None:
    volumes = toy(flips=(0, 2))
    dataset = whole(volumes, AugmentationConfig(flip=True))
    plain = whole(volumes)[BatchKey(0, [0, 1])].volumes
    allowed = {
        axes: plain[1].flip([axis + 1 for axis in axes]) for axes in ((), (0,), (2,), (0, 2))
    }
    seen: set[tuple[int, ...]] = set()
    for epoch in range(40):
        sided, free = dataset[BatchKey(epoch, [0, 1])].volumes
        assert torch.equal(sided, plain[0])
        seen |= {axes for axes, volume in allowed.items() if torch.equal(volume, free)}
    assert seen == set(allowed)


def test_intensities_change_within_bounds() -> None:
    volumes = toy()
    volumes.images[:] = 128
    change = AugmentationConfig(intensity_scale=0.2, intensity_shift=0.1)
    dataset = whole(volumes, change)
    values = torch.stack(
        [dataset[BatchKey(epoch, [0])].volumes[0, 0, 0, 0, 0] for epoch in range(300)]
    )
    middle = 128 / 255
    assert values.min() >= 0.8 * middle - 0.1 - 1e-6
    assert values.max() <= 1.2 * middle + 0.1 + 1e-6
    assert values.mean() == pytest.approx(middle, abs=0.02)
    # var = m^2 0.2^2 / 3 + 0.1^2 / 3
    assert values.std() == pytest.approx((middle**2 * 0.04 / 3 + 0.01 / 3) ** 0.5, rel=0.15)
    volumes.images[:] = 255
    assert max(dataset[BatchKey(epoch, [0])].volumes.max() for epoch in range(20)) == 1


def test_augmentation_written_out() -> None:
    # Three coins for the axes, then two numbers for the intensities: a run that is repeated with
    # another version must draw the same.
    random = np.random.default_rng([1, 2, 3])
    mirrored, (scale, shift) = random.random(3) < 0.5, random.uniform(-1, 1, 2)
    axes = tuple(axis for axis in (0, 2) if mirrored[axis])
    volumes = toy(flips=(0, 2))
    expected = np.flip(volumes.images[3, 0] / np.float32(255), axes)
    expected = (expected * (1 + 0.2 * scale) + 0.05 * shift).clip(0, 1)
    drawn = whole(volumes, ALL_CHANGES, 1)[BatchKey(2, [3])].volumes[0, 0].numpy()
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-6)


def test_what_shares_geometry_is_mirrored_alike_and_changed_apart() -> None:
    # One volume twice, as two modalities of a scan that happen to be equal.
    volume = np.random.default_rng(0).uniform(0.3, 0.7, (3, 4, 5)).astype(np.float32)
    before = volume.copy()
    flips: set[tuple[int, ...]] = set()
    for seed in range(40):
        one, other = (
            augment(
                volume,
                ALL_CHANGES,
                (0, 1, 2),
                np.random.default_rng(seed),
                np.random.default_rng([seed, modality]),
            )
            for modality in range(2)
        )
        # Each is a rising line of the other: the same voxels, in the same places.
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9999
        assert np.abs(one - other).max() > 1e-4
        turned = [
            axis for axis, coin in enumerate(np.random.default_rng(seed).random(3)) if coin < 0.5
        ]
        assert np.corrcoef(one.ravel(), np.flip(volume, turned).ravel())[0, 1] > 0.9999
        flips.add(tuple(turned))
    assert len(flips) == 8
    assert np.array_equal(volume, before)


def test_validation_is_not_augmented() -> None:
    volumes = toy(4)
    key = BatchKey(0, [0, 1, 2, 3])
    plain, changed = whole(volumes), whole(volumes, ALL_CHANGES, train=False)
    assert torch.equal(changed[key].volumes, plain[key].volumes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_float_volume_is_named(bad: float) -> None:
    images = toy(3).images.astype(np.float32) / 255
    images[1, 0, 0, 0, :2] = bad
    dataset = whole(ArrayDataset("toy", images, names=["toy/0", "toy/1", "toy/2"]))
    assert torch.equal(dataset[BatchKey(0, [0])].volumes[0], torch.from_numpy(images[0]))
    with pytest.raises(Prod9Error, match="toy/1 has 2 of 60 voxels that are NaN or infinite"):
        dataset[BatchKey(0, [0, 1])]


def test_masks_are_mirrored_with_the_image_and_keep_their_numbers() -> None:
    images = np.random.default_rng(0).integers(0, 3, (1, 2, 4, 4, 4)).astype(np.float32)
    images[:, 0] = images[:, 1] / 4 + 0.25
    channels = (Channel("image"), Channel("mask", "labels"))
    data = ArrayDataset("pair", images, channels, flips=[(0, 1, 2)])
    turned = 0
    for epoch in range(10):
        batch = whole(data, ALL_CHANGES)[BatchKey(epoch, [0, 1])]
        image, mask = batch.volumes[:, 0]
        assert set(mask.unique().tolist()) == {0.0, 1.0, 2.0}
        assert np.corrcoef(image.ravel(), mask.ravel())[0, 1] > 0.9
        assert batch.names == ["00000/image", "00000/mask"]
        turned += not torch.equal(mask, torch.from_numpy(images[0, 1]))
    assert turned >= 5
