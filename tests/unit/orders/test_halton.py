import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from prod9.orders.halton import halton_cells
from prod9.sampling import sample

V = 11
GRID = (3, 2, 4)
N = math.prod(GRID)


def revealed_cells(initial: Tensor, steps: int) -> list[list[int]]:
    """Return, for each sample, the cells in the order in which they are revealed, but the last."""
    seen: list[Tensor] = []

    def logits_fn(tokens: Tensor, progress: float) -> Tensor:
        seen.append(tokens.flatten(1).clone())
        return torch.zeros(*tokens.shape, V)

    stream = torch.Generator().manual_seed(0)
    settings = {"mask_id": V, "order": "halton", "schedule": "linear", "steps": steps}
    sample(logits_fn, initial, generator=stream, **settings)
    return [
        [int((a[i] != b[i]).nonzero()[0]) for a, b in itertools.pairwise(seen)]
        for i in range(len(initial))
    ]


def radical_inverse(n: int, base: int) -> Fraction:
    value, place = Fraction(0), Fraction(1, base)
    while n:
        n, digit = divmod(n, base)
        value, place = value + digit * place, place / base
    return value


def slow_halton(grid: tuple[int, ...]) -> tuple[list[int], int]:
    """Return the cells in order of first hit, and the points it took."""
    order: list[int] = []
    seen: set[int] = set()
    n = 0
    while len(order) < math.prod(grid):
        n += 1
        cell = 0
        for side, base in zip(grid, (2, 3, 5), strict=False):
            cell = cell * side + math.floor(radical_inverse(n, base) * side)
        if cell not in seen:
            seen.add(cell)
            order.append(cell)
    return order, n


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 5), (4, 4, 4), (7, 7, 7), (5, 1, 6), (6, 9)])
def test_halton_order_is_that_of_a_plain_loop(grid: tuple[int, ...]) -> None:
    assert halton_cells(grid).tolist() == slow_halton(grid)[0]


def first_hits(side: int, points: int) -> np.ndarray:
    """Return the first point (from 1) in each cell, by digits rather than by fractions."""
    cells = np.zeros(points, np.int64)
    for base in (2, 3, 5):
        digits = math.ceil(math.log(points + 1, base))
        rest, numerator = np.arange(1, points + 1), np.zeros(points, np.int64)
        for _ in range(digits):
            numerator, rest = numerator * base + rest % base, rest // base
        cells = cells * side + numerator * side // base**digits
    hit, first = np.unique(cells, return_index=True)
    assert len(hit) == side**3
    return first + 1


# One less than the points that are needed: these count the sequence's origin, which is not drawn.
@pytest.mark.parametrize(("side", "points"), [(16, 15_357 - 1), (32, 143_246 - 1)])
def test_points_that_cover_a_grid(side: int, points: int) -> None:
    first = first_hits(side, points)
    assert first.max() == points
    assert np.array_equal(halton_cells((side,) * 3).numpy(), np.argsort(first, kind="stable"))


def test_first_cells_are_spread() -> None:
    # Any 30 points in a row meet each of 2 x 3 x 5 boxes once: so do the first 30 distinct cells
    # of a fine grid.
    grid = (32, 33, 35)
    cells = np.stack(np.unravel_index(halton_cells(grid)[:30].numpy(), grid), 1)
    boxes = {
        tuple(int(c * parts // side) for c, parts, side in zip(cell, (2, 3, 5), grid, strict=True))
        for cell in cells
    }
    assert len(boxes) == 30


def test_samples_are_revealed_in_rolled_halton_order() -> None:
    order = halton_cells(GRID).tolist()
    starts = set()
    for revealed in revealed_cells(torch.full((6, *GRID), V), N):
        start = order.index(revealed[0])
        starts.add(start)
        assert revealed == (order[start:] + order[:start])[: N - 1]
    assert len(starts) > 1


def test_known_cells_are_skipped() -> None:
    initial = torch.zeros(1, *GRID, dtype=torch.int64)
    unknown = [0, 3, 7, 8, 20, 23]
    initial.view(1, -1)[0, unknown] = V
    revealed = revealed_cells(initial, 6)[0]
    remaining = [cell for cell in halton_cells(GRID).tolist() if cell in unknown]
    start = remaining.index(revealed[0])
    assert revealed == (remaining[start:] + remaining[:start])[:5]
