"""Sample tokens by filling in what is masked, in a few passes.

The sampler knows neither network nor guidance nor image: it asks a ``logits_fn`` and returns
tokens. Cells that are known at the start are never changed, so generation, in-painting,
out-painting and completion are the same call.

Tokens of one step are drawn without seeing each other, so that some do not fit together. Revisions
mask a random part of what was filled in and draw it again (in between: Wang et al. 2025, arXiv
2503.00307).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from prod9.errors import Prod9Error
from prod9.masking import gamma
from prod9.registry import ORDERS
from prod9.shapes import Logits, Tokens

LogitsFn = Callable[[Tokens, float], Logits]
"""(tokens with the mask id on unknown cells, progress in [0, 1]) -> logits over the V codes. The
progress is 1 in revisions."""
Score = Callable[[Float[Tensor, "b n"], float], Float[Tensor, "b n"]]
"""(log-probability of each cell's candidate, noise level) -> the cells revealed first have the
highest score. The noise level falls linearly from ``choice_temperature`` to 0."""


@dataclass(frozen=True)
class Order:
    """Which unknown cells are revealed first."""

    start: Callable[[Bool[Tensor, "b n"], tuple[int, ...], torch.Generator | None], Score]
    """(unknown cells (B, N), grid, generator) -> the score of every step; called once, first."""
    round_up: bool = False
    """Round the number of cells that stay unknown up instead of down."""
    uses_choice_temperature: bool = False
    """The score depends on the noise level."""


def gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return standard Gumbel noise of the shape and type of ``like``."""
    uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    tiny = torch.finfo(like.dtype).tiny
    exponential = -torch.log(uniform.clamp_min(tiny))
    return -torch.log(exponential.clamp_min(tiny))


def draw(
    logits: Float[Tensor, "b n v"], temperature: float, generator: torch.Generator | None
) -> tuple[Int64[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Sample from softmax(logits / temperature); return the codes and their log-probabilities."""
    log_p = torch.log_softmax(logits.float() / temperature, -1)
    drawn = (log_p + gumbel(log_p, generator)).argmax(-1)  # the Gumbel-max trick
    return drawn, log_p.gather(-1, drawn[..., None])[..., 0]


@torch.no_grad()
def sample(
    logits_fn: LogitsFn,
    initial: Tokens,
    *,
    mask_id: int,
    order: str,
    steps: int,
    schedule: str,
    temperature: float = 1.0,
    final_temperature: float | None = None,
    choice_temperature: float = 4.5,
    revisions: int = 0,
    revised_share: float = 0.3,
    generator: torch.Generator | None = None,
) -> Tokens:
    """Fill the cells of ``initial`` that hold ``mask_id``; leave all others as they are.

    Args:
        logits_fn: the (guided) model.
        initial: shape (B, *grid); any number of unknown cells, differing between samples.
        mask_id: the codebook size V; never sampled.
        order: which cells are revealed first, a name of ``ORDERS``.
        steps: passes at most: each reveals at least one cell, until none is unknown.
        schedule: share of the cells that is unknown after each step, a name of ``SCHEDULES``.
        temperature: of the softmax that tokens are sampled from, in the first step.
        final_temperature: in the last pass, linearly in between; ``temperature`` when left out.
        choice_temperature: of the order; falls linearly to 0.
        revisions: passes after the last step.
        revised_share: chance of each filled cell to be masked and drawn again in a revision.
        generator: source of all randomness, on the tokens' device.

    Raises:
        ValueError: ``steps`` is below 1.
        Prod9Error: an unknown order or schedule, or an order's scores of another shape.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    grid = tuple(initial.shape[1:])
    tokens = initial.flatten(1).clone()
    unknown = tokens == mask_id
    free = unknown
    total = unknown.sum(1, keepdim=True)  # U0, (B, 1)
    chosen: Order = ORDERS.get(order)
    score = chosen.start(unknown, grid, generator)

    def drawn_at(number: int) -> tuple[Tensor, Tensor]:
        logits = logits_fn(tokens.view(initial.shape), min(1.0, number / steps))
        warmth = temperature
        if final_temperature is not None:
            warmth += (final_temperature - temperature) * number / max(1, steps + revisions - 1)
        return draw(logits.flatten(1, -2)[..., :mask_id], warmth, generator)

    for step in range(steps):
        drawn, log_p = drawn_at(step)

        rho = torch.tensor((step + 1) / steps, dtype=torch.float64, device=tokens.device)
        left = gamma(schedule, rho, total) * total
        # (1 - 0.9) * 20 is 1.9999999999999996 in floating point, and must count as 2.
        left = (left - 1e-9).ceil() if chosen.round_up else (left + 1e-9).floor()
        still = unknown.sum(1, keepdim=True)
        # At least one cell is revealed; before the last step at least one stays if it can.
        left = torch.minimum(left.clamp_min(1), still - 1).clamp_min(0)
        if step == steps - 1:
            left = torch.zeros_like(left)
        scores = score(log_p, choice_temperature * (1 - (step + 1) / steps))
        if scores.shape != log_p.shape or not scores.is_floating_point() or scores.isnan().any():
            raise Prod9Error(
                f"the sampling order {order} must return floats of shape {[*log_p.shape]}, none of "
                f"them NaN, not {scores.dtype} of shape {[*scores.shape]}."
            )
        scores = scores.masked_fill(~unknown, torch.inf)
        remask = unknown & (scores.argsort(1).argsort(1) < left)
        tokens = torch.where(unknown & ~remask, drawn, tokens)
        unknown = remask
        if not bool(unknown.any()):
            break

    for revision in range(revisions):
        chance = torch.rand(tokens.shape, generator=generator, device=tokens.device)
        hidden = free & (chance < revised_share)
        known, tokens = tokens, tokens.masked_fill(hidden, mask_id)
        tokens = torch.where(hidden, drawn_at(steps + revision)[0], known)
    return tokens.view(initial.shape)
