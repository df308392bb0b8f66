import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prod9.models.rotary import fourier_features, grid_coordinates, rotary_angles, rotate

sides = st.tuples(*[st.integers(1, 5)] * 3)


def test_coordinates_are_row_major() -> None:
    cells = grid_coordinates((2, 3, 4))
    assert cells.tolist() == [[a, b, c] for a in range(2) for b in range(3) for c in range(4)]


def test_angles_are_coordinate_times_frequency() -> None:
    # Head of 16: 8 pairs, 2 per axis (frequencies 1 and 1/10), 2 that do not turn.
    angles = rotary_angles((3, 4, 5), 16)
    assert angles.shape == (60, 8)
    for cell, row in zip(grid_coordinates((3, 4, 5)).tolist(), angles, strict=True):
        expected = [cell[0], cell[0] / 10, cell[1], cell[1] / 10, cell[2], cell[2] / 10, 0, 0]
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float32))


def test_a_head_too_small_to_turn() -> None:
    assert torch.equal(rotary_angles((2, 2, 2), 4), torch.zeros(8, 2))


def explicit(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i + d/2}) by a 2 x 2 rotation matrix."""
    half = x.shape[-1] // 2
    out = x.clone()
    for n in range(x.shape[-2]):
        for i in range(half):
            a = float(angles[n, i])
            turn = torch.tensor(
                [[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=x.dtype
            )
            pair = x[..., n, [i, i + half]]
            out[..., n, [i, i + half]] = pair @ turn.T
    return out


def test_rotation_is_that_of_matrices() -> None:
    angles = rotary_angles((2, 3, 2), 12).double()
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)).double()
    turned = rotate(x, angles.cos(), angles.sin())
    torch.testing.assert_close(turned, explicit(x, angles), rtol=0, atol=1e-12)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


@given(grid=sides, seed=st.integers(0, 999))
def test_dot_products_depend_on_the_difference_of_positions_alone(grid, seed):
    grid = tuple(side + 1 for side in grid)
    stream = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 1, 1, 1, 24, generator=stream).double()
    angles = rotary_angles(grid, 24).double()
    cells = len(angles)
    rotated_q = rotate(q.expand(1, 1, cells, 24), angles.cos(), angles.sin())[0, 0]
    rotated_k = rotate(k.expand(1, 1, cells, 24), angles.cos(), angles.sin())[0, 0]
    products = rotated_q @ rotated_k.T
    places = grid_coordinates(grid).long()
    by_difference: dict[tuple[int, ...], float] = {}
    for i in range(0, cells, max(1, cells // 8)):
        for j in range(cells):
            key = tuple((places[i] - places[j]).tolist())
            value = float(products[i, j])
            assert abs(by_difference.setdefault(key, value) - value) < 1e-4
    # The angles are fp32; different differences give different products.
    assert len({round(v, 6) for v in by_difference.values()}) > len(by_difference) * 0.9


@given(grid=sides)
def test_fourier_features_tell_all_cells_apart(grid):
    features = fourier_features(grid, 6)
    assert features.shape == (math.prod(grid), 36)
    assert len(torch.unique(features, dim=0)) == math.prod(grid)


def test_fourier_features_are_sines_of_the_relative_place() -> None:
    features = fourier_features((4, 1, 2), 3)
    for cell, row in zip(grid_coordinates((4, 1, 2)).tolist(), features, strict=True):
        place = [(c + 0.5) / side for c, side in zip(cell, (4, 1, 2), strict=True)]
        turns = [p * math.pi * 2**band for p in place for band in range(3)]
        expected = [math.sin(t) for t in turns] + [math.cos(t) for t in turns]
        torch.testing.assert_close(row, torch.tensor(expected), rtol=0, atol=1e-5)
