"""Finite Scalar Quantization (Mentzer et al. 2023, arXiv 2309.15505), the only file that rounds.

Latent channel i takes one of ``levels[i]`` values; a cell of the grid is the product of its
channels, so the codebook has prod(levels) entries and no parameters.

:meth:`FSQ.quantize` bounds and rounds a raw latent; :meth:`FSQ.codes_to_indices` takes codes and
never bounds again: bounding twice shrinks the codes and loses most of the codebook. All arithmetic
is fp32 under any autocast: in bf16 or fp16 more than half of the indices come out wrong.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from prod9.shapes import Codes, Latent, Tokens

_EXACT_IN_FP32 = 2**24
"""Up to here fp32 holds every whole number; int64 costs twice the memory."""


class _RoundStraightThrough(torch.autograd.Function):
    """Round to the nearest whole number; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return grad_outputs[0]


class FSQ(nn.Module):
    """Quantiser for latents of shape (B, len(levels), *grid).

    Args:
        levels: values per latent channel, each at least 3: with two, the shift that centres an
            even grid, atanh(1/2 / h) with h near 1/2, grows without bound.

    Raises:
        ValueError: no level, or one below 3.
    """

    _levels: Tensor
    _basis: Tensor

    def __init__(self, levels: Sequence[int], eps: float = 1e-3) -> None:
        super().__init__()
        if not levels or min(levels) < 3:
            raise ValueError(f"FSQ needs at least one level, each at least 3, not {list(levels)}")
        self.levels = tuple(levels)
        self.codebook_size = math.prod(levels)
        self.eps = eps
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("_levels", torch.tensor(levels), persistent=False)
        self.register_buffer("_basis", torch.tensor(basis), persistent=False)

    def _per_channel(self, values: Tensor, ndim: int) -> Tensor:
        """Shape (l,) -> (1, l, 1, ...), to meet tensors of ``ndim`` axes."""
        return values.view(1, -1, *[1] * (ndim - 2))

    def bound(self, z: Latent) -> Latent:
        """Squash a raw latent so that rounding gives exactly ``levels[i]`` values a channel.

        b = tanh(z + s) h - o, h = (L-1)(1+eps)/2, o = 1/2 for even L else 0, s = atanh(o/h)
        (appendix A.1 of the paper, whose printed ``tan`` means ``atanh``). fp32 in and out.
        """
        levels = self._per_channel(self._levels, z.ndim).float()
        half = (levels - 1) * (1 + self.eps) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(z.float() + torch.atanh(offset / half)) * half - offset

    def quantize(self, z: Latent) -> Codes:
        """Bound and round a raw latent; the gradient passes straight through the rounding.

        Returns:
            Codes in [-1, 1], fp32, same shape: integers over floor(L/2).
        """
        with torch.autocast(z.device.type, enabled=False):
            rounded = cast(Tensor, _RoundStraightThrough.apply(self.bound(z)))
            return rounded / self._per_channel(self._levels // 2, z.ndim)

    def codes_to_indices(self, codes: Codes) -> Tokens:
        """Codes -> token = sum_i digit_i * prod_{j<i} L_j, int64, shape (B, *grid)."""
        with torch.autocast(codes.device.type, enabled=False):
            half = self._per_channel(self._levels // 2, codes.ndim)
            digits = (codes.detach().float() * half + half).round_()
        if self.codebook_size > _EXACT_IN_FP32:
            digits = digits.long()
        return (digits * self._per_channel(self._basis, codes.ndim)).sum(1).long()

    def indices_to_digits(self, tokens: Tokens) -> Tensor:
        """Tokens (B, *grid) in [0, codebook_size) -> levels, int64, shape (B, l, *grid)."""
        tokens = tokens[:, None]
        basis = self._per_channel(self._basis, tokens.ndim)
        return tokens // basis % self._per_channel(self._levels, tokens.ndim)

    def level_rows(self) -> Tensor:
        """For each code, which rows of a table with one row per level are its: int64 (V, l)."""
        digits = self.indices_to_digits(torch.arange(self.codebook_size)[None])[0]  # (l, V)
        starts = torch.tensor([sum(self.levels[:i]) for i in range(len(self.levels))])
        return (digits + starts[:, None]).T.contiguous()

    def indices_to_codes(self, tokens: Tokens) -> Codes:
        """Tokens (B, *grid) in [0, codebook_size) -> codes in [-1, 1], fp32, (B, l, *grid)."""
        half = self._per_channel(self._levels // 2, tokens.ndim + 1)
        return (self.indices_to_digits(tokens) - half).float() / half
