import pickle
from typing import Any

import numpy as np
import pytest
import torch

from prod9.config import MedMNISTDataConfig
from prod9.config.data import AugmentationConfig
from prod9.data.batches import BatchKey, set_epoch
from prod9.data.volumes import ArrayVolumes, Batch, VolumeDataset, augment, loader
from prod9.errors import Prod9Error

ALL_CHANGES = AugmentationConfig(flip=True, intensity_scale=0.2, intensity_shift=0.1)


def volume_set(count: int = 10, flips: tuple[int, ...] = (0, 1, 2)) -> ArrayVolumes:
    random = np.random.default_rng(3)
    return ArrayVolumes(
        images=random.integers(0, 256, (count, 3, 4, 5), dtype=np.uint8),
        labels=np.arange(count) % 2,
        names=[f"toy/{i}" for i in range(count)],
        class_names=("sided", "free"),
        flip_axes=((), flips),
    )


def config(**settings: Any) -> MedMNISTDataConfig:
    return MedMNISTDataConfig(dataset_name="organmnist3d", **settings)


def epoch_of(loader: Any, epoch: int) -> list[Batch]:
    set_epoch(loader, epoch)
    return list(loader)


def names(parts: list[Batch]) -> list[str]:
    return [name for batch in parts for name in batch.names]


def same(one: list[Batch], other: list[Batch]) -> bool:
    return names(one) == names(other) and all(
        torch.equal(a.volumes, b.volumes) and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


def test_a_batch_is_the_voxels_over_255() -> None:
    volumes = volume_set()
    batch = VolumeDataset(volumes)[BatchKey(0, [7, 2])]
    expected = torch.from_numpy(volumes.images[[7, 2]]).float()[:, None] / 255
    assert batch.volumes.dtype == torch.float32
    assert torch.equal(batch.volumes, expected)
    assert batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [1, 0]
    assert batch.names == ["toy/7", "toy/2"]


def test_evaluation_keeps_the_order_and_every_volume() -> None:
    parts = list(loader(volume_set(10), config(batch_size=4), train=False, seed=0))
    assert [len(part.names) for part in parts] == [4, 4, 2]
    assert names(parts) == [f"toy/{i}" for i in range(10)]


def test_training_shuffles_and_drops_the_last_short_batch() -> None:
    train = loader(volume_set(10), config(batch_size=4), train=True, seed=0)
    parts = list(train)
    assert [len(part.names) for part in parts] == [4, 4]
    assert len(train) == 2
    assert len(set(names(parts))) == 8
    assert names(parts) != sorted(names(parts))


def test_fewer_volumes_than_a_batch_are_one_batch() -> None:
    parts = list(loader(volume_set(3), config(batch_size=4), train=True, seed=0))
    assert [len(part.names) for part in parts] == [3]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[str]:
        return names(
            epoch_of(loader(volume_set(), config(batch_size=5), train=True, seed=seed), epoch)
        )

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    assert sorted(order(0, 3)) == sorted(order(1, 4))


def test_augmentation_is_drawn_from_seed_epoch_and_volume() -> None:
    volumes = volume_set()

    def draw(seed: int, epoch: int, indices: list[int]) -> torch.Tensor:
        return VolumeDataset(volumes, ALL_CHANGES, seed)[BatchKey(epoch, indices)].volumes

    assert torch.equal(draw(0, 1, [3, 5]), draw(0, 1, [5, 3]).flip(0))  # not of the batch
    assert not torch.equal(draw(0, 1, [3]), draw(0, 2, [3]))
    assert not torch.equal(draw(0, 1, [3]), draw(1, 1, [3]))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(num_workers: int) -> None:
    settings = {"batch_size": 3, "augmentation": ALL_CHANGES}
    here = loader(volume_set(), config(**settings), train=True, seed=4)
    there = loader(volume_set(), config(**settings, num_workers=num_workers), train=True, seed=4)
    for epoch in (0, 1):  # persistent workers must hear of the second epoch
        assert same(epoch_of(here, epoch), epoch_of(there, epoch))


def test_the_data_set_can_be_sent_to_a_spawned_worker() -> None:
    dataset = pickle.loads(pickle.dumps(VolumeDataset(volume_set(), ALL_CHANGES, 1)))
    key = BatchKey(2, [1, 2, 3])
    expected = VolumeDataset(volume_set(), ALL_CHANGES, 1)[key]
    assert torch.equal(dataset[key].volumes, expected.volumes)


def test_flips_are_the_allowed_ones_and_all_of_them_occur() -> None:
    volumes = volume_set(flips=(0, 2))
    dataset = VolumeDataset(volumes, AugmentationConfig(flip=True))
    plain = VolumeDataset(volumes)[BatchKey(0, [0, 1])].volumes
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
    volumes = volume_set()
    volumes.images[:] = 128
    change = AugmentationConfig(intensity_scale=0.2, intensity_shift=0.1)
    dataset = VolumeDataset(volumes, change)
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
    volumes = volume_set(flips=(0, 2))
    expected = np.flip(volumes.images[3] / np.float32(255), axes)
    expected = (expected * (1 + 0.2 * scale) + 0.1 * shift).clip(0, 1)
    drawn = VolumeDataset(volumes, ALL_CHANGES, 1)[BatchKey(2, [3])].volumes[0, 0].numpy()
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


def test_the_stored_volumes_stay_as_they_are() -> None:
    volumes = volume_set()
    before = volumes.images.copy()
    list(loader(volumes, config(augmentation=ALL_CHANGES), train=True, seed=0))
    assert np.array_equal(volumes.images, before)


def test_validation_is_not_augmented() -> None:
    volumes = volume_set(4)
    settings = config(augmentation=ALL_CHANGES)
    (batch,) = loader(volumes, settings, train=False, seed=0)
    assert torch.equal(batch.volumes, VolumeDataset(volumes)[BatchKey(0, [0, 1, 2, 3])].volumes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_float_volume_is_named(bad: float) -> None:
    toy = volume_set(3)
    images = toy.images.astype(np.float32) / 255
    images[1, 0, 0, :2] = bad
    volumes = ArrayVolumes(images, toy.labels, toy.names, toy.class_names, toy.flip_axes)
    dataset = VolumeDataset(volumes)
    assert torch.equal(dataset[BatchKey(0, [0])].volumes[0, 0], torch.from_numpy(images[0]))
    with pytest.raises(Prod9Error, match="toy/1 has 2 of 60 voxels that are NaN or infinite"):
        dataset[BatchKey(0, [0, 1])]
