"""Trade time for memory: compute a block's activations again when the gradient needs them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Checkpointed(nn.Module):
    """A block that keeps its input alone for the backward pass, where :attr:`recompute` is set.

    The numbers are the same either way (Chen et al. 2016, arXiv 1604.06174).
    """

    recompute: bool = False

    def __call__(self, *args: Any) -> Tensor:
        """Call ``forward``, perhaps to be called again."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *args, use_reentrant=False)
        return super().__call__(*args)


def recompute_activations(network: nn.Module) -> int:
    """Let all :class:`Checkpointed` blocks of ``network`` keep their inputs alone; return how many.

    Copies of the network made before, such as its moving average, are left as they are.
    """
    blocks = [module for module in network.modules() if isinstance(module, Checkpointed)]
    for block in blocks:
        block.recompute = True
    return len(blocks)
