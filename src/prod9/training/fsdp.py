"""A network's weights split over processes (FSDP2: Zhao et al. 2023, arXiv 2304.11277)."""

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from prod9.networks.transformer import MaskedTransformer


def shard(network: MaskedTransformer, mesh: DeviceMesh) -> None:
    """Leave each process a part of every weight; a block's are gathered while it computes.

    All processes must call the network, and only its ``loss`` or ``forward``, equally often.
    """
    for block in network.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # Given back after the forward pass too, or the averaged weights, which have no backward pass,
    # would stay whole.
    fully_shard(network, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(network, "loss")


def whole_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with whole tensors; where weights are split, a step of all processes.

    The names, and the tensors of a network that is not split, are those of its ``state_dict``.
    """
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in network.state_dict().items()
    }
