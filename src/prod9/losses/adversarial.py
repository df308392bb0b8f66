"""Adversarial losses over a multi-scale patch discriminator, and their adaptive weight.

The losses take the raw logits, one tensor per scale (B, 1, *patches), and average over the scales,
so that a further discriminator does not change the size of the term. Logits are never squashed
first: a hinge after a tanh has no gradient where the discriminator is sure. fp32 throughout.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from prod9.runtime.distributed import average

Criterion: TypeAlias = Literal["hinge", "least_squares"]
ScaleLogits: TypeAlias = Sequence[Float[Tensor, "..."]]


def generator_loss(logits_fake: ScaleLogits, criterion: Criterion) -> Float[Tensor, ""]:
    """How far reconstructions are from being taken for real volumes.

    hinge: mean(-D(G)) (Lim & Ye 2017, arXiv 1705.02894); least squares: mean((D(G) - 1)^2)
    (Mao et al. 2017, arXiv 1611.04076, eq. 9 without its factor 1/2).
    """
    if criterion == "hinge":
        terms = [-fake.float().mean() for fake in logits_fake]
    else:
        terms = [(fake.float() - 1).square().mean() for fake in logits_fake]
    return torch.stack(terms).mean()


def discriminator_loss(
    logits_real: ScaleLogits, logits_fake: ScaleLogits, criterion: Criterion
) -> Float[Tensor, ""]:
    """How badly real volumes and (detached) reconstructions are told apart; half real, half fake.

    hinge: (mean(relu(1 - D(x))) + mean(relu(1 + D(G)))) / 2; least squares:
    (mean((D(x) - 1)^2) + mean(D(G)^2)) / 2.
    """
    pairs = [(r.float(), f.float()) for r, f in zip(logits_real, logits_fake, strict=True)]
    if criterion == "hinge":
        terms = [(1 - r).relu().mean() + (1 + f).relu().mean() for r, f in pairs]
    else:
        terms = [(r - 1).square().mean() + f.square().mean() for r, f in pairs]
    return torch.stack(terms).mean() / 2


def adaptive_weight(
    reconstruction: Float[Tensor, "*volume"],
    of_reconstruction_loss: Float[Tensor, "*volume"],
    of_adversarial_loss: Float[Tensor, "*volume"],
    last_layer: Tensor,
    max_weight: float,
    eps: float = 1e-4,
    scale: float = 1.0,
) -> Float[Tensor, ""]:
    """Weight that makes both terms pull equally hard at the decoder's last layer.

    ||grad of all reconstruction terms|| / (||grad of the adversarial term|| + eps), clamped to
    [0, max_weight], detached, fp32 (Esser et al. 2021, arXiv 2012.09841, eq. 7). The graph is kept.
    In a distributed run the gradients are means over all processes.

    Args:
        reconstruction: the decoder's output, with its graph.
        of_reconstruction_loss: gradient of all weighted reconstruction terms together, at the
            reconstruction: from there to the last layer it is one step.
        of_adversarial_loss: gradient of the unweighted adversarial term, at the reconstruction.
        last_layer: weight of the decoder's last layer; it must require a gradient.
        max_weight: upper clamp, for when the discriminator's gradient vanishes.
        eps: keeps a vanishing adversarial gradient from dividing by zero.
        scale: the loss scale of fp16 training, without which small gradients vanish on their way
            to the layer. Where a scaled gradient overflows the weight is 0 for this step.
    """

    def at_layer(gradient: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(
            reconstruction, last_layer, grad_outputs=scale * gradient, retain_graph=True
        )
        return result.float()

    pulls = [at_layer(of_reconstruction_loss), at_layer(of_adversarial_loss)]
    average(pulls)  # before their norms: the norm of a mean is not the mean of norms
    reconstruction_pull, adversarial_pull = (pull.norm() / scale for pull in pulls)
    weight = reconstruction_pull / (adversarial_pull + eps)
    return torch.nan_to_num(weight, nan=0.0, posinf=0.0).clamp(0.0, max_weight)
