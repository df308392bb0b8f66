import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prod9.networks.rotary import (
    fourier_features,
    grid_coordinates,
    relative_place,
    rotary_angles,
    rotate,
)

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
    (features,) = fourier_features(relative_place(grid, 1, grid, None), 6)
    assert features.shape == (math.prod(grid), 36)
    assert len(torch.unique(features, dim=0)) == math.prod(grid)


def test_fourier_features_are_sines_of_the_relative_place() -> None:
    (features,) = fourier_features(relative_place((4, 1, 2), 1, (4, 1, 2), None), 3)
    for cell, row in zip(grid_coordinates((4, 1, 2)).tolist(), features, strict=True):
        place = [(c + 0.5) / side for c, side in zip(cell, (4, 1, 2), strict=True)]
        turns = [p * math.pi * 2**band for p in place for band in range(3)]
        expected = [math.sin(t) for t in turns] + [math.cos(t) for t in turns]
        torch.testing.assert_close(row, torch.tensor(expected), rtol=0, atol=1e-5)


@given(grid=st.tuples(*[st.integers(1, 40)] * 3), patch_size=st.integers(1, 4))
def test_on_the_whole_grid_a_place_is_that_of_the_position_to_the_bit(grid, patch_size):
    # What networks without windows have always been told: (position + 1/2) / positions.
    positions = tuple(-(-side // patch_size) for side in grid)
    expected = (grid_coordinates(positions) + 0.5) / torch.tensor(positions)
    (place,) = relative_place(positions, patch_size, grid, None)
    assert torch.equal(place, expected)
    # From its first cell on is the same.
    for row in relative_place(positions, patch_size, grid, torch.zeros(2, 3)):
        assert torch.equal(row, expected)


def test_places_of_an_odd_grid_in_patches_of_two() -> None:
    # 5 cells are 3 positions, 3 cells 2, 1 cell 1; the padded faces are 6, 4 and 2 cells apart.
    (place,) = relative_place((3, 2, 1), 2, (5, 3, 1), None)
    expected = [[(a + 0.5) / 3, (b + 0.5) / 2, 0.5] for a in range(3) for b in range(2)]
    assert torch.equal(place, torch.tensor(expected))


@given(
    shift=st.tuples(*[st.integers(0, 4)] * 3),
    positions=sides,
    whole=st.tuples(*[st.integers(1, 25)] * 3),
    patch_size=st.integers(1, 3),
)
def test_an_origin_of_whole_positions_is_a_look_at_later_ones(shift, positions, whole, patch_size):
    more = tuple(n + s for n, s in zip(positions, shift, strict=True))
    (longer,) = relative_place(more, patch_size, whole, None)
    d, h, w = (slice(s, None) for s in shift)
    expected = longer.view(*more, 3)[d, h, w].reshape(-1, 3)
    origin = patch_size * torch.tensor([shift, (0, 0, 0)], dtype=torch.float32)
    moved, unmoved = relative_place(positions, patch_size, whole, origin)
    assert torch.equal(moved, expected)
    assert torch.equal(unmoved, relative_place(positions, patch_size, whole, None)[0])


def test_an_origin_may_lie_between_cells() -> None:
    # 3 of 8 cells in the middle: the first begins 2.5 cells from the face.
    (place,) = relative_place((3, 1, 1), 1, (8, 1, 1), torch.tensor([[2.5, 0, 0]]))
    assert place[:, 0].tolist() == [3 / 8, 4 / 8, 5 / 8]
