"""Draw tokens by filling in what is masked, in a few passes.

The sampler knows neither network nor guidance nor image: it asks a ``logits_fn`` and returns
tokens. Cells that are known at the start are never changed, so generation, in-painting,
out-painting and completion are the same call.

Orders: ``confidence`` (Chang et al. 2022, arXiv 2202.04200, algorithm of section 3.2) and
``halton`` (Besnier et al. 2025, arXiv 2503.17076).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from prod9.masking import Schedule, gamma
from prod9.shapes import Logits, Tokens

LogitsFn = Callable[[Tokens, float], Logits]
"""(tokens with the mask id on unknown cells, progress in [0, 1)) -> logits over the V codes."""
Order = Literal["confidence", "halton"]


def _gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    tiny = torch.finfo(like.dtype).tiny
    exponential = -torch.log(uniform.clamp_min(tiny))
    return -torch.log(exponential.clamp_min(tiny))


def draw(
    logits: Float[Tensor, "b n v"], temperature: float, generator: torch.Generator | None
) -> tuple[Int64[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Draw from softmax(logits / temperature); return the draws and their log-probabilities."""
    log_p = torch.log_softmax(logits.float() / temperature, -1)
    drawn = (log_p + _gumbel(log_p, generator)).argmax(-1)  # the Gumbel-max trick
    return drawn, log_p.gather(-1, drawn[..., None])[..., 0]


@lru_cache(maxsize=8)
def halton_cells(grid: tuple[int, ...]) -> Int64[Tensor, " n"]:
    """Return the flat indices of all cells of ``grid`` in the order of a Halton sequence.

    Bases 2, 3, 5 for the axes; a cell counts when the sequence first falls into it. Points are
    drawn until every cell was hit (15,356 for 16^3, 143,245 for 32^3; one more with the origin).

    Raises:
        ValueError: more than three axes.
    """
    bases = (2, 3, 5)
    if len(grid) > len(bases):
        raise ValueError(f"the Halton order has bases for 3 axes, the grid has {len(grid)}")
    total = int(torch.tensor(grid).prod())
    count = 4 * total
    while True:
        cells = torch.zeros(count, dtype=torch.int64)
        for side, base in zip(grid, bases, strict=False):
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


def _halton_ranks(
    unknown: Bool[Tensor, "b n"], grid: tuple[int, ...], generator: torch.Generator | None
) -> Int64[Tensor, "b n"]:
    """Place of each cell in its sample's rolled Halton order, unknown cells first."""
    b, n = unknown.shape
    order = halton_cells(grid).to(unknown.device)
    roll = torch.randint(n, (b, 1), generator=generator, device=unknown.device)
    place = torch.empty_like(order)
    place[order] = torch.arange(n, device=unknown.device)
    place = (place + roll) % n
    return (place + n * (~unknown)).argsort(1).argsort(1)


@torch.no_grad()
def sample(
    logits_fn: LogitsFn,
    initial: Tokens,
    *,
    mask_id: int,
    order: Order,
    steps: int,
    schedule: Schedule,
    temperature: float = 1.0,
    choice_temperature: float = 4.5,
    generator: torch.Generator | None = None,
) -> Tokens:
    """Fill the cells of ``initial`` that hold ``mask_id``; leave all others as they are.

    Args:
        logits_fn: the (guided) model.
        initial: shape (B, *grid); any number of unknown cells, differing between samples.
        mask_id: the codebook size V; never drawn.
        order: which cells are revealed first.
        steps: passes at most. More steps than unknown cells is legal: at least one cell a step is
            revealed, and the sampler stops when none is left.
        schedule: share of the unknown cells that is still unknown after each step.
        temperature: of the softmax that tokens are drawn from.
        choice_temperature: Gumbel noise on the confidences, annealed linearly to 0.
        generator: source of all randomness, on the tokens' device.

    Raises:
        ValueError: ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    grid = tuple(initial.shape[1:])
    tokens = initial.flatten(1).clone()
    unknown = tokens == mask_id
    total = unknown.sum(1, keepdim=True)  # U0, (B, 1)
    ranks = _halton_ranks(unknown, grid, generator) if order == "halton" else None

    for step in range(steps):
        logits = logits_fn(tokens.view(initial.shape), step / steps)
        logits = logits.flatten(1, -2)[..., :mask_id]
        drawn, log_p = draw(logits, temperature, generator)

        rho = torch.tensor((step + 1) / steps, dtype=torch.float64, device=tokens.device)
        # Floor and ceiling as each paper has it (Halton counts what is revealed, rounded down).
        left = gamma(schedule, rho, total) * total
        # (1 - 0.9) * 20 is 1.9999999999999996 in floating point, and must count as 2.
        left = (left + 1e-9).floor() if ranks is None else (left - 1e-9).ceil()
        still = unknown.sum(1, keepdim=True)
        # At least one cell is revealed; before the last step at least one stays if it can.
        left = torch.minimum(left.clamp_min(1), still - 1).clamp_min(0)
        if step == steps - 1:
            left = torch.zeros_like(left)
        if ranks is None:
            noise = choice_temperature * (1 - (step + 1) / steps)
            confidence = log_p + noise * _gumbel(log_p, generator)
            confidence = confidence.masked_fill(~unknown, torch.inf)
            remask = unknown & (confidence.argsort(1).argsort(1) < left)
        else:
            remask = unknown & (ranks >= total - left)
        tokens = torch.where(unknown & ~remask, drawn, tokens)
        unknown = remask
        if not bool(unknown.any()):
            break
    return tokens.view(initial.shape)
