"""Adaptive weight of the adversarial term (Esser et al. 2021, arXiv 2012.09841, eq. 7)."""

import torch
from jaxtyping import Float
from torch import Tensor

from prod9.runtime.distributed import average


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
    [0, max_weight], detached, fp32. The graph is kept for the backward pass that follows. In a
    distributed run the gradients are those of the batch of all processes, and so is the weight.

    Both losses come as their gradients at the reconstruction: from there it is one layer to where
    the weight is measured, and neither loss has to be differentiated again for the step itself.

    Args:
        reconstruction: the decoder's output, with its graph.
        of_reconstruction_loss: gradient of all weighted reconstruction terms together, unscaled.
        of_adversarial_loss: gradient of the generator's adversarial term, unweighted and unscaled.
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
    finite = torch.nan_to_num(weight, nan=0.0, posinf=0.0)
    return finite.clamp(0.0, max_weight)  # detached, since the gradients are
