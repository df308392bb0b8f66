"""Trade time for memory: compute a block's activations again when the gradient needs them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Checkpointed(nn.Module):
    """A block that, where :attr:`recompute` is set, keeps only its input for the backward pass.

    The numbers are the same either way (Chen et al. 2016, arXiv 1604.06174).
    """

    recompute: bool = False

    def __call__(self, *args: Any) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *args, use_reentrant=False)
        return super().__call__(*args)


def recompute_activations(network: nn.Module) -> None:
    """Set :attr:`Checkpointed.recompute` in all blocks of ``network``, but not in its copies."""
    for module in network.modules():
        if isinstance(module, Checkpointed):
            module.recompute = True
