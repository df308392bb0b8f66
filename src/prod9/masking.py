"""Mask schedules and random masking (MaskGIT, Chang et al. 2022, arXiv 2202.04200, section 3.3)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from prod9.registry import SCHEDULES
from prod9.shapes import Tokens


def cosine(r: Tensor, count: int | Tensor) -> Tensor:
    """cos(pi r / 2)."""
    return torch.cos(math.pi / 2 * r)


def arccos(r: Tensor, count: int | Tensor) -> Tensor:
    """2 acos(r) / pi."""
    return 2 / math.pi * torch.acos(r)


def linear(r: Tensor, count: int | Tensor) -> Tensor:
    """1 - r."""
    return 1 - r


def log(r: Tensor, count: int | Tensor) -> Tensor:
    """-log2(r) / log2(count), clipped to [0, 1]."""
    smallest = torch.finfo(r.dtype).tiny
    bits = torch.as_tensor(count, dtype=r.dtype, device=r.device).clamp_min(2).log2()
    return (-torch.log2(r.clamp_min(smallest)) / bits).clamp(0, 1)


def gamma(schedule: str, r: Tensor, count: int | Tensor) -> Tensor:
    """Share of tokens that is masked at progress ``r`` in [0, 1]; falls from 1 to 0.

    ``r`` has any shape; ``count`` is the number of tokens, for all or per sample.

    Raises:
        Prod9Error: an unknown ``schedule``.
    """
    return SCHEDULES.get(schedule)(r, count)


@dataclass(frozen=True)
class MaskedTokens:
    """``tokens`` with the masked cells set to the mask id; ``mask`` is true on those cells."""

    tokens: Tokens
    mask: Bool[Tensor, "b *grid"]


def mask_tokens(
    tokens: Tokens,
    share: Tensor,
    mask_id: int,
    generator: torch.Generator | None = None,
    scores: Tensor | None = None,
) -> MaskedTokens:
    """Mask exactly max(1, round(share * N)) tokens of each sample, chosen uniformly.

    Args:
        tokens: shape (B, *grid), N cells each.
        share: gamma(r) per sample in [0, 1], shape (B,).
        mask_id: what replaces a masked token: the codebook size.
        generator: of the choice, on the tokens' device; not used where ``scores`` are given.
        scores: uniform numbers (B, N).
    """
    flat = tokens.flatten(1)
    if scores is None:
        scores = torch.rand(flat.shape, generator=generator, device=tokens.device)
    order = scores.argsort(1)  # a uniform permutation: the cells with the first places are masked
    count = (share * flat.shape[1]).round().clamp_min(1)
    mask = (order < count[:, None]).view(tokens.shape)
    return MaskedTokens(tokens.masked_fill(mask, mask_id), mask)
