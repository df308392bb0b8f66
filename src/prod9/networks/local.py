"""Mixing of neighbouring tokens at full resolution, before packing and after unpacking."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prod9.networks.activation_checkpointing import Checkpointed
from prod9.networks.blocks import zero_
from prod9.networks.cpu_kernels.conv import Conv3d


class LocalBlock(Checkpointed):
    """Residual 3 x 3 x 3 convolutions over the token grid; starts as the identity.

    Packing p^3 tokens into one position shortens the sequence but hides which token is whose
    neighbour across a border. Two convolutions restore that at a fraction of a block's cost.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.conv1 = Conv3d(dim, dim, 3)
        self.conv2 = Conv3d(dim, dim, 3)
        zero_(self.conv2)

    def forward(self, x: Float[Tensor, "b gd gh gw f"]) -> Float[Tensor, "b gd gh gw f"]:
        # Features last is what convolutions call channels last: no copy is made.
        h = self.norm(x).movedim(-1, 1)
        h = self.conv2(F.silu(self.conv1(h)))
        return x + h.movedim(1, -1)
