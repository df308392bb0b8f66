"""From a feature per token to a distribution over the codebook."""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from prod9.fsq import FSQ
from prod9.networks.cpu_kernels.linear import Linear


class Head(Protocol):
    """An affine map from features (..., dim) to logits (..., V)."""

    def __call__(self, features: Tensor) -> Tensor: ...

    def loss(
        self, features: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]: ...


class FullHead(nn.Module):
    """One logit per code."""

    def __init__(self, dim: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.linear = Linear(dim, FSQ(levels).codebook_size)

    def forward(self, features: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n v"]:
        return self.linear(features)

    def loss(
        self, features: Float[Tensor, "m dim"], targets: Int64[Tensor, " m"], label_smoothing: float
    ) -> tuple[Float[Tensor, ""], Bool[Tensor, " m"]]:
        """Mean cross-entropy with label smoothing, in fp32; and where the best code is right."""
        logits = self.linear.plain(features).float()
        loss = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        return loss, logits.detach().argmax(-1) == targets


class LatticeHead(nn.Module):
    """One logit per code: a sum over its levels, plus the code's own, which starts at zero.

    Codes are points on a lattice, see :class:`prod9.networks.embedding.TokenEmbedding`: what is
    learned of a level is learned for all codes that have it. It can represent what
    :class:`FullHead` can.
    """

    _rows: Tensor

    def __init__(self, dim: int, levels: Sequence[int]) -> None:
        super().__init__()
        fsq = FSQ(levels)
        self.codes = nn.Linear(dim, fsq.codebook_size)
        self.levels = nn.Linear(dim, sum(levels), bias=False)
        nn.init.zeros_(self.codes.weight)
        nn.init.zeros_(self.codes.bias)
        self.register_buffer("_rows", fsq.level_rows(), persistent=False)

    def forward(self, features: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n v"]:
        # Not levels.weight[rows]: its gradient adds up in whatever order the threads come.
        by_level = F.embedding(self._rows, self.levels.weight).sum(1)
        return F.linear(features, self.codes.weight + by_level, self.codes.bias)

    def loss(
        self, features: Float[Tensor, "m dim"], targets: Int64[Tensor, " m"], label_smoothing: float
    ) -> tuple[Float[Tensor, ""], Bool[Tensor, " m"]]:
        """As :meth:`FullHead.loss`."""
        logits = self(features).float()
        loss = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        return loss, logits.detach().argmax(-1) == targets


class FactorizedHead(nn.Module):
    """One logit per level of each channel; a code's logit is the sum over its channels.

    It assumes that a cell's channels are independent given the context, and needs sum(L_i) outputs
    in place of prod(L_i).
    """

    _digits: Tensor

    def __init__(self, dim: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.linear = Linear(dim, sum(levels))
        fsq = FSQ(levels)
        digits = fsq.indices_to_digits(torch.arange(fsq.codebook_size)[None])[0]  # (l, V)
        self.register_buffer("_digits", digits, persistent=False)

    def forward(self, features: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n v"]:
        parts = self.linear(features).split(self.levels, dim=-1)
        zero = torch.zeros((), device=features.device)
        return sum((p[..., digit] for p, digit in zip(parts, self._digits, strict=True)), zero)

    def loss(
        self, features: Float[Tensor, "m dim"], targets: Int64[Tensor, " m"], label_smoothing: float
    ) -> tuple[Float[Tensor, ""], Bool[Tensor, " m"]]:
        """As :meth:`FullHead.loss` of :meth:`forward`'s logits, computed level by level.

        The log-softmax of a sum over independent channels is the sum of their log-softmaxes; so is
        its mean over all codes, which label smoothing needs.
        """
        parts = self.linear.plain(features).float().split(self.levels, dim=-1)
        digits = self._digits[:, targets]
        losses = [
            F.cross_entropy(part, digit, label_smoothing=label_smoothing)
            for part, digit in zip(parts, digits, strict=True)
        ]
        hits = [part.detach().argmax(-1) == d for part, d in zip(parts, digits, strict=True)]
        return torch.stack(losses).sum(), torch.stack(hits).all(0)
