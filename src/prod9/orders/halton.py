"""Reveal the cells in the order of a Halton sequence (Besnier et al. 2025, arXiv 2503.17076)."""

import math
from functools import lru_cache

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from prod9.sampling import Order, Score


@lru_cache(maxsize=8)
def halton_cells(grid: tuple[int, ...]) -> Int64[Tensor, " n"]:
    """Return the flat indices of all cells of ``grid`` in the order of a Halton sequence.

    Bases 2, 3, 5 for the (at most three) axes; a cell counts when the sequence first falls into
    it. Points are taken until every cell is hit (15,356 for 16^3, 143,245 for 32^3).
    """
    total = math.prod(grid)
    count = 4 * total
    while True:
        cells = torch.zeros(count, dtype=torch.int64)
        for side, base in zip(grid, (2, 3, 5)[: len(grid)], strict=True):
            rest = torch.arange(1, count + 1)
            # The radical inverse as an exact fraction numerator / base^digits, in integers.
            numerator, denominator = torch.zeros_like(rest), 1
            while bool(rest.any()):
                numerator = numerator * base + rest % base
                rest, denominator = rest // base, denominator * base
            cells = cells * side + numerator * side // denominator
        # For each cell, the first point that falls into it.
        first = torch.full((total,), count, dtype=torch.int64)
        first.scatter_reduce_(0, cells, torch.arange(count), "amin")
        if int(first.max()) < count:
            return first.argsort()
        count *= 2


def _start(
    unknown: Bool[Tensor, "b n"], grid: tuple[int, ...], generator: torch.Generator | None
) -> Score:
    """Score the unknown cells by their place in the sequence, rolled at random per sample."""
    b, n = unknown.shape
    order = halton_cells(grid).to(unknown.device)
    roll = torch.randint(n, (b, 1), generator=generator, device=unknown.device)
    scores = -((order.argsort() + roll) % n).float()
    return lambda log_p, noise: scores


# The paper rounds the number of revealed cells down.
HALTON = Order(_start, round_up=True)
