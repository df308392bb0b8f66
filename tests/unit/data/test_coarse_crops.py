"""Crops of coarse volumes in the training of the tokenizer."""

from typing import Any

import numpy as np
import pytest
import torch

from prod9.config import BraTSDataConfig
from prod9.config.data import CoarseConfig
from prod9.data.batches import BatchKey
from prod9.data.crops import Batch, VolumeCrops
from prod9.data.dataset import Channel, Dataset


class Ramps(Dataset):
    """Two volumes, the second one brighter, that rise along the first axis."""

    name, channels, names, shape = "ramps", (Channel("a"),), ("0", "1"), (20, 16, 10)

    def crop(self, item: int, channel: int, start: Any, sides: Any) -> np.ndarray:
        ramp = (np.arange(20, dtype=np.float32) / 40 + 0.5 * item)[:, None, None]
        whole = np.broadcast_to(ramp, self.shape)
        d, h, w = (slice(s, s + r) for s, r in zip(start, sides, strict=True))
        assert whole[d, h, w].shape == tuple(sides)  # never asked for what is outside
        return whole[d, h, w].copy()


def crops(train: bool = True, **coarse: Any) -> Batch:
    config = BraTSDataConfig(
        dataset_name="brats", crops_per_volume=20, coarse=CoarseConfig(**coarse)
    )
    source = VolumeCrops(Ramps(), config, (8, 8, 8), train=train, seed=0)
    return source[BatchKey(0, list(range(len(source))))]


@pytest.mark.parametrize("factor", [2, 4])
def test_a_share_of_the_crops_is_coarse(factor: int) -> None:
    volumes = crops(factor=factor, share=0.5).volumes[:, 0]
    assert volumes.shape == (40, 8, 8, 8)
    steps = (volumes[:, 1] - volumes[:, 0])[:, 0, 0]  # of the ramp, from voxel to voxel
    coarse = torch.isclose(steps, torch.tensor(factor / 40))
    assert torch.allclose(steps[~coarse], torch.tensor(1 / 40))
    assert 8 < int(coarse.sum()) < 32
    if factor == 4:  # five voxels long: it goes on as it ends
        last = volumes[coarse][:, 4:, 0, 0]
        assert torch.equal(last, last[:, :1].expand_as(last))
        assert volumes[coarse][:20].max() < 1


def test_what_is_not_coarse_is_as_without() -> None:
    plain, mixed = crops().volumes, crops(factor=2, share=0.5).volumes
    same = (plain == mixed).flatten(1).all(1)
    steps = mixed[:, 0, 1, 0, 0] - mixed[:, 0, 0, 0, 0]
    assert torch.equal(same, torch.isclose(steps, torch.tensor(1 / 40)))


def test_validation_has_no_coarse_crops() -> None:
    assert torch.equal(crops(False).volumes, crops(False, factor=2, share=0.9).volumes)
