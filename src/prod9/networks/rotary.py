"""Positions on a 3D grid: rotary embedding for attention, Fourier features for the input."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def grid_coordinates(
    grid: tuple[int, int, int], device: torch.device | None = None
) -> Float[Tensor, "n 3"]:
    """Return the integer coordinates of all cells of ``grid``, row-major."""
    axes = [torch.arange(side, dtype=torch.float32, device=device) for side in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)


def rotary_angles(
    grid: tuple[int, int, int], head_dim: int, device: torch.device | None = None
) -> Float[Tensor, "n half"]:
    """Rotation angle of each of the head's ``head_dim // 2`` pairs at each cell.

    A third of the pairs turns with each axis (Su et al. 2021, arXiv 2104.09864, in three axes);
    pairs that remain do not turn. The base is 100, not 10,000: a grid side has tens of cells.
    """
    per_axis = head_dim // 2 // 3
    frequency = 100.0 ** (-torch.arange(per_axis, dtype=torch.float32, device=device) / per_axis)
    angles = grid_coordinates(grid, device)[:, :, None] * frequency  # (N, 3, per_axis)
    rest = head_dim // 2 - 3 * per_axis
    return torch.cat([angles.flatten(1), torch.zeros(len(angles), rest, device=device)], 1)


def rotate(x: Float[Tensor, "b heads n dim"], cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + dim/2}) by the angles whose cos and sin are (n, dim / 2)."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def relative_place(
    positions: tuple[int, int, int],
    patch_size: int,
    whole: Sequence[int],
    origin: Float[Tensor, "b 3"] | None,
    device: torch.device | None = None,
) -> Float[Tensor, "b n 3"]:
    """Middle of each position between the faces of the training volumes' grid, in (0, 1).

    Args:
        positions: per axis, of ``patch_size`` cells each.
        patch_size: cells per position and axis.
        whole: cells of the training volumes' grid; padded to whole positions.
        origin: first cell of each sample in that grid; (0, 0, 0) for all (B = 1) if None.
        device: of the result.
    """
    padded = torch.tensor([-(-side // patch_size) * patch_size for side in whole], device=device)
    middle = patch_size * (grid_coordinates(positions, device) + 0.5)[None]
    return (middle if origin is None else middle + origin[:, None]) / padded


def fourier_features(place: Float[Tensor, "b n 3"], bands: int) -> Float[Tensor, "b n features"]:
    """Sines and cosines of a place in (0, 1)^3: ``bands`` frequencies, each twice the previous.

    Rotary attention sees only differences of positions, so on a grid that is masked everywhere it
    would predict the same for every cell. These 6 * ``bands`` features tell the cells apart.
    """
    turns = place[..., None] * math.pi * 2.0 ** torch.arange(bands, device=place.device)
    turns = turns.flatten(2)
    return torch.cat([turns.sin(), turns.cos()], -1)
