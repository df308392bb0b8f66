"""Reveal the most confident cells first (Chang et al. 2022, arXiv 2202.04200, section 3.2)."""

import torch
from jaxtyping import Bool
from torch import Tensor

from prod9.sampling import Order, Score, gumbel


def _start(
    unknown: Bool[Tensor, "b n"], grid: tuple[int, ...], generator: torch.Generator | None
) -> Score:
    return lambda log_p, noise: log_p + noise * gumbel(log_p, generator)


CONFIDENCE = Order(_start, uses_choice_temperature=True)
