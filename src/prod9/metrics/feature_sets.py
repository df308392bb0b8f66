"""Two sets of feature vectors, checked, and their distances."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_BLOCK_ENTRIES = 1 << 22
"""Distances held at once."""


def as_pair(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], least: int
) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, "m d"]]:
    """Return both sets in fp64.

    Raises:
        ValueError: fewer than ``least`` vectors in a set, vectors of different lengths or of
            length 0, NaN or infinite features.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or x.shape[1] == 0:
        raise ValueError(f"features of {[*x.shape]} and {[*y.shape]} do not compare")
    if min(len(x), len(y)) < least:
        raise ValueError(f"at least {least} vectors a set are needed, not {len(x)} and {len(y)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("features have NaN or infinite values")
    return x.double(), y.double()


def distance_blocks(
    x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]
) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the rows, and their Euclidean distances: fp64, (rows, m).

    From differences, not from |x|^2 + |y|^2 - 2 x y: the distance of a copy is exactly 0, and equal
    distances compare as equal.
    """
    rows = max(1, _BLOCK_ENTRIES // max(1, len(y)))
    for first in range(0, len(x), rows):
        block = slice(first, min(first + rows, len(x)))
        yield block, torch.cdist(x[block], y, compute_mode="donot_use_mm_for_euclid_dist")
