"""The Dice coefficient against hand results and MONAI."""

import math

import numpy as np
import pytest
import torch
from monai.metrics.meandice import compute_dice

from prod9.metrics.dice import dice


def test_half_of_a_shape() -> None:
    target = np.zeros((4, 4, 4), np.float32)
    target[:2] = 1
    found = target * 0.9
    assert dice(found, target) == 1
    found[1] = 0.2  # 16 of 32 voxels are found: 2 * 16 / (16 + 32)
    assert dice(found, target) == pytest.approx(2 / 3)
    assert dice(1 - target, target) == 0
    assert dice(np.zeros_like(target), target) == 0


def test_what_is_no_shape_has_none() -> None:
    grey = np.full((2, 2, 2), 0.5, np.float32)
    assert math.isnan(dice(grey, grey))
    assert math.isnan(dice(grey, np.zeros_like(grey)))


def test_as_monai() -> None:
    random = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.9):
        target = (random.random((6, 7, 8)) < share).astype(np.float32)
        found = random.random(target.shape).astype(np.float32)
        ours, theirs = (
            dice(found, target),
            compute_dice(
                torch.from_numpy((found > 0.5).astype(np.float32))[None, None],
                torch.from_numpy(target)[None, None],
            ),
        )
        assert ours == pytest.approx(float(theirs))
