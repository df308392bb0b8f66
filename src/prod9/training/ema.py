"""Exponential moving average of a network's weights."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

NetworkT = TypeVar("NetworkT", bound=nn.Module)


class EMA(nn.Module, Generic[NetworkT]):
    """A frozen copy of ``network`` with averaged weights.

    Update n sets the copy to decay * copy + (1 - decay) * network with
    decay = min(``decay``, (1 + n) / (10 + n)), so that in short runs the first weights do not
    dominate. With ``decay`` 0 the copy equals the network.
    """

    updates: Tensor

    def __init__(self, network: NetworkT, decay: float) -> None:
        super().__init__()
        self.network: NetworkT = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.tensor(0))
        self._count = 0

    def train(self, mode: bool = True) -> "EMA[NetworkT]":
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: NetworkT) -> None:
        """Average the weights of ``network`` in."""
        self._count += 1
        self.updates.fill_(self._count)
        decay = min(self.decay, (1 + self._count) / (10 + self._count))
        average = get_ema_multi_avg_fn(decay)
        average(_floats(self.network), _floats(network), self._count)

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)  # pyright: ignore[reportArgumentType]
        self._count = int(self.updates)


def _floats(network: nn.Module) -> list[Tensor]:
    # Not from the state dict, where a tensor may have two names and would be averaged twice.
    tensors = (*network.parameters(), *network.buffers())
    # With FSDP each process averages its own part.
    own = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return [tensor for tensor in own if tensor.is_floating_point()]
