"""Dice coefficient of binary shapes."""

import math

import numpy as np


def dice(prediction: np.ndarray, target: np.ndarray) -> float:
    """Return 2 |A and B| / (|A| + |B|); A are the voxels of ``prediction`` above 0.5, B the shape.

    NaN where ``target`` is no shape: a voxel other than 0 and 1, or no voxel of 1 (Dice 1945).

    Args:
        prediction: in [0, 1], any shape.
        target: of the same shape.
    """
    shape = target == 1
    size = np.count_nonzero(shape)
    if size == 0 or size + np.count_nonzero(target == 0) < target.size:
        return math.nan
    found = prediction > 0.5
    return 2 * np.count_nonzero(found & shape) / (np.count_nonzero(found) + size)
