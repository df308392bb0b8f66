"""Adversarial losses over a multi-scale patch discriminator: hinge and least squares.

Each takes the raw logits, one tensor per scale (B, 1, *patches), and averages over the scales, so
that a further discriminator does not change the size of the term. Logits are never squashed first:
a hinge behind a tanh has no gradient left where the discriminator is sure. fp32 throughout.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Criterion: TypeAlias = Literal["hinge", "least_squares"]
ScaleLogits: TypeAlias = Sequence[Float[Tensor, "..."]]


def _over_scales(terms: Sequence[Tensor]) -> Tensor:
    if not terms:
        raise ValueError("adversarial losses need the logits of at least one discriminator")
    return torch.stack(list(terms)).mean()


def generator_loss(logits_fake: ScaleLogits, criterion: Criterion) -> Float[Tensor, ""]:
    """How far reconstructions are from being taken for real volumes.

    hinge: mean(-D(G)) (Lim & Ye 2017, arXiv 1705.02894); least squares: mean((D(G) - 1)^2)
    (Mao et al. 2017, arXiv 1611.04076, eq. 9 without its factor 1/2).

    Raises:
        ValueError: no scales.
    """
    if criterion == "hinge":
        return _over_scales([-fake.float().mean() for fake in logits_fake])
    return _over_scales([(fake.float() - 1).square().mean() for fake in logits_fake])


def discriminator_loss(
    logits_real: ScaleLogits, logits_fake: ScaleLogits, criterion: Criterion
) -> Float[Tensor, ""]:
    """How badly real volumes and reconstructions are told apart; half real, half fake.

    hinge: (mean(relu(1 - D(x))) + mean(relu(1 + D(G)))) / 2; least squares:
    (mean((D(x) - 1)^2) + mean(D(G)^2)) / 2. Reconstructions come in detached.

    Raises:
        ValueError: no scales, or not equally many.
    """
    pairs = [(r.float(), f.float()) for r, f in zip(logits_real, logits_fake, strict=True)]
    if criterion == "hinge":
        return _over_scales([(1 - r).relu().mean() + (1 + f).relu().mean() for r, f in pairs]) / 2
    return _over_scales([(r - 1).square().mean() + f.square().mean() for r, f in pairs]) / 2
