import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prod9.data.array_dataset import ArrayDataset
from prod9.data.volume_sets.volume_set import (
    ONE_CLASS,
    VolumeSet,
    comparable,
    of_dataset,
    of_tensor,
    without_classes,
)
from prod9.errors import Prod9Error

SHAPE = (2, 3, 4)


def collection(
    labels: Any = (0, 1, 1), class_names: tuple[str, ...] = ("liver", "heart"), **change: Any
) -> VolumeSet:
    """Volume i is full of 10 i + 5, of 255."""
    images = np.stack([np.full(SHAPE, 10 * i + 5, np.uint8) for i in range(len(labels))])
    names = [f"v{i}" for i in range(len(labels))]
    classes = np.array(labels, np.int64)
    data = ArrayDataset(
        "some", images[:, None], names=names, classes=classes, class_names=class_names
    )
    return replace(of_dataset(data), **change)


def test_bytes_become_shares_of_255_and_floats_stay() -> None:
    volumes = collection()
    assert volumes[2].dtype == np.float32
    assert np.array_equal(volumes[2], np.full(SHAPE, np.float32(25 / 255)))
    assert (len(volumes), volumes.shape, volumes.intensity) == (3, SHAPE, "uint8 / 255")
    stored = torch.rand(2, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    floats = of_tensor(stored, torch.tensor([1, 0]), ("a", "b"), "drawn")
    assert torch.equal(floats.tensor(), stored)
    assert floats.labels.tolist() == [1, 0]
    assert floats.names == ("0_b", "1_a")
    assert floats.intensity == "stored in [0, 1]"


def test_a_volume_is_the_callers_to_change() -> None:
    volumes = collection()
    volumes[0][:] = 1
    assert volumes[0].max() == np.float32(5 / 255)


def test_batches_give_all_in_order() -> None:
    volumes = collection(labels=(0, 1, 0, 1, 0))
    batches = list(volumes.batches(2))
    assert [tuple(batch.shape) for batch in batches] == [(n, 1, *SHAPE) for n in (2, 2, 1)]
    assert torch.equal(torch.cat(batches), volumes.tensor())
    assert torch.equal(volumes.tensor([3, 0])[:, 0, 0, 0, 0] * 255, torch.tensor([35.0, 5.0]))


def test_selecting_and_counting() -> None:
    volumes = collection(files=tuple(Path(f"v{i}.nii") for i in range(3)))
    assert volumes.counts == {"liver": 1, "heart": 2}
    assert volumes.of_class(1).tolist() == [1, 2]
    some = volumes.select(volumes.of_class(1)[::-1])
    assert some.names == ("v2", "v1")
    assert some.files == (Path("v2.nii"), Path("v1.nii"))
    assert some.counts == {"heart": 2}
    assert some[0].max() == np.float32(25 / 255)
    again = some.select([1])
    assert again.names == ("v1",)
    assert again[0].max() == np.float32(15 / 255)


def test_the_range_of_intensities() -> None:
    volumes = collection()
    assert volumes.intensity_range == (np.float32(5 / 255), np.float32(25 / 255))
    assert volumes.select([1]).intensity_range == (np.float32(15 / 255),) * 2


def test_the_digest_is_of_names_classes_and_voxels() -> None:
    volumes = collection()
    digest = hashlib.sha256()
    for name, label, value in (("v0", "liver", 5), ("v1", "heart", 15), ("v2", "heart", 25)):
        digest.update(f"{name}\0{label}\0".encode())
        digest.update(np.full(SHAPE, np.float32(value) / np.float32(255)).tobytes())
    assert volumes.sha256 == digest.hexdigest()
    others = [
        collection(labels=(1, 1, 1)),
        collection(names=("v0", "v1", "w2")),
        volumes.select([0, 1]),
        volumes.select([0, 2, 1]),
    ]
    assert len({volumes.sha256, *(other.sha256 for other in others)}) == 5


def test_comparable_takes_over_the_references_labels() -> None:
    reference = collection(class_names=("heart", "liver"))
    other = collection(labels=(0, 0, 1))
    first, second = comparable(reference, other)
    assert first is reference
    assert second.class_names == ("heart", "liver")
    assert second.labels.tolist() == [1, 1, 0]
    # A class that only has a name there need not be known.
    third = collection(labels=(0, 0, 1), class_names=("liver", "heart", "spleen"))
    assert comparable(reference, third)[1].labels.tolist() == [1, 1, 0]


def test_without_classes_in_one_nothing_is_compared_by_class() -> None:
    plain = without_classes(collection())
    for result in comparable(collection(), plain):
        assert result.class_names == ONE_CLASS
        assert result.labels.tolist() == [0, 0, 0]
        assert not result.has_classes


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(Prod9Error, match="other are 9 x 3 x 4, those of some 2 x 3 x 4"):
        comparable(collection(), collection(name="other", shape=(9, 3, 4)))
    with pytest.raises(Prod9Error, match="other has the class lung, which some does not know"):
        comparable(collection(), collection(name="other", class_names=("liver", "lung")))
