"""Adaptive weight of the adversarial term (Esser et al. 2021, arXiv 2012.09841, eq. 7)."""

import torch
from jaxtyping import Float
from torch import Tensor


def adaptive_weight(
    reconstruction_loss: Float[Tensor, ""],
    adversarial_loss: Float[Tensor, ""],
    last_layer: Tensor,
    max_weight: float,
    eps: float = 1e-4,
    scale: float = 1.0,
) -> Float[Tensor, ""]:
    """Weight that makes both terms pull equally hard at the decoder's last layer.

    ||grad of all reconstruction terms|| / (||grad of the adversarial term|| + eps), clamped to
    [0, max_weight], detached, fp32. Both graphs are kept for the backward pass that follows.

    Args:
        reconstruction_loss: all weighted reconstruction terms together, unscaled.
        adversarial_loss: the generator's adversarial term, unweighted and unscaled.
        last_layer: weight of the decoder's last layer; it must require a gradient.
        max_weight: upper clamp, for when the discriminator's gradient vanishes.
        eps: keeps a vanishing adversarial gradient from dividing by zero.
        scale: the loss scale of fp16 training, without which small gradients vanish on their way
            to the layer. Where a scaled gradient overflows the weight is 0 for this step.

    """

    def norm(loss: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(scale * loss, last_layer, retain_graph=True)
        return gradient.float().norm() / scale

    weight = norm(reconstruction_loss) / (norm(adversarial_loss) + eps)
    finite = torch.nan_to_num(weight, nan=0.0, posinf=0.0)
    return finite.clamp(0.0, max_weight)  # detached, since the gradients are
