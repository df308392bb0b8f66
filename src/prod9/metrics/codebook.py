"""How a codebook is used: share of codes, perplexity, levels of each channel.

FSQ has no collapse of the kind vector quantisation has (Mentzer et al. 2023, arXiv 2309.15505), but
an autoencoder can still leave most codes untouched, or a channel on one level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from prod9.shapes import Tokens


@dataclass(frozen=True)
class CodebookStats:
    """Statistics of how often each code occurred."""

    usage: float
    """Share of the codes that occurred, in (0, 1]."""
    perplexity: float
    """exp(entropy), in [1, codebook size]: of the number of equally frequent codes."""
    level_shares: tuple[tuple[float, ...], ...]
    """For each latent channel, the share of tokens on each of its levels."""


def codebook_stats(counts: Int64[Tensor, " v"], levels: Sequence[int]) -> CodebookStats:
    """Statistics of how often each token occurred, for FSQ levels with prod(levels) = v.

    Raises:
        ValueError: nothing was counted.
    """
    total = int(counts.sum())
    if total == 0:
        raise ValueError("no tokens were counted")
    shares = counts.double().cpu() / total
    # Channel 0 is the fastest digit of a token, hence the last axis here.
    grid = shares.view(*reversed(levels)).permute(*reversed(range(len(levels))))
    level_shares = [
        grid.movedim(channel, 0).reshape(level, -1).sum(1) for channel, level in enumerate(levels)
    ]
    return CodebookStats(
        usage=int((counts > 0).sum()) / len(counts),
        perplexity=math.exp(-float(torch.xlogy(shares, shares).sum())),
        level_shares=tuple(tuple(share.tolist()) for share in level_shares),
    )


class CodebookUsage:
    """Running count of tokens; :meth:`update` never waits for the device."""

    def __init__(self, levels: Sequence[int]) -> None:
        self.levels = tuple(levels)
        self.reset()

    def update(self, tokens: Tokens) -> None:
        """Count tokens in [0, codebook size)."""
        flat = tokens.detach().flatten()
        self.counts = self.counts.to(flat.device)
        self.counts.index_add_(0, flat, torch.ones_like(flat))

    def compute(self) -> CodebookStats:
        """Return :func:`codebook_stats` of all tokens since the last reset."""
        return codebook_stats(self.counts, self.levels)

    def reset(self) -> None:
        """Set all counts, int64 (prod(levels),), to 0."""
        self.counts = torch.zeros(math.prod(self.levels), dtype=torch.int64)
