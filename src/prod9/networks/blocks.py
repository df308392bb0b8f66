"""Building blocks of the 3D networks."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prod9.networks.activation_checkpointing import Checkpointed
from prod9.networks.cpu_kernels.conv import Conv3d
from prod9.networks.cpu_kernels.norm import NormSiLU, group_count


def zero_(layer: nn.Conv3d | nn.Linear) -> None:
    """Set weight and bias to zero, so that a residual branch starts by adding nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class ResidualBlock(Checkpointed):
    """Pre-activation residual block: norm, SiLU, convolution, twice; (B, C_in -> C_out, ...)."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = NormSiLU(in_channels, groups)
        self.conv1 = Conv3d(in_channels, out_channels, 3)
        self.norm2 = NormSiLU(out_channels, groups)
        self.conv2 = Conv3d(out_channels, out_channels, 3)
        # Each block starts as the identity, so that a deep stack trains from the first step.
        zero_(self.conv2)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return self.skip(x) + h


class LocalBlock(Checkpointed):
    """Residual 3^3 convolutions over the token grid; starts as the identity.

    Packing p^3 tokens into one position hides which tokens are neighbours across a border. Two
    convolutions at full resolution restore that at a fraction of a transformer block's cost.
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


class AttentionBlock(nn.Module):
    """Self-attention over all cells of a (coarse) feature grid, one head per 64 channels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 64)
        while channels % self.heads:
            self.heads -= 1
        self.norm = nn.GroupNorm(group_count(channels, groups), channels)
        self.qkv = nn.Conv3d(channels, 3 * channels, 1)
        self.out = nn.Conv3d(channels, channels, 1)
        zero_(self.out)

    def forward(self, x: Tensor) -> Tensor:
        b, c, d, h, w = x.shape
        qkv = self.qkv(self.norm(x)).flatten(2)  # (B, 3C, N)
        qkv = qkv.view(b, 3, self.heads, c // self.heads, d * h * w).transpose(3, 4)
        # Fused attention wants the channels of a cell side by side; the other keeps (N, N) weights.
        q, k, v = qkv.contiguous().unbind(1)  # each (B, heads, N, C/heads)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        return x + self.out(attended.reshape(b, c, d, h, w))


class Downsample(nn.Sequential):
    """Halve each side: (B, C_in, D, H, W) -> (B, C_out, D/2, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv3d(in_channels, out_channels, 4, stride=2, padding=1))


class Upsample(nn.Module):
    """Double each side by predicting 2 x 2 x 2 sub-voxels per cell (Shi et al. 2016).

    (B, C_in, D, H, W) -> (B, C_out, 2D, 2H, 2W). Cheaper than convolving the enlarged grid; all
    sub-voxels start equal (Aitken et al. 2017), so that no checkerboard has to be unlearned.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv = Conv3d(in_channels, 8 * out_channels, 3)
        first = self.conv.weight[:out_channels].detach()
        self.conv.weight.data.copy_(first.repeat_interleave(8, 0))
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        b, _, d, h, w = x.shape
        # Features stay last throughout: a copy in another layout would slow all that follows.
        x = self.conv(x).movedim(1, -1).reshape(b, d, h, w, self.out_channels, 2, 2, 2)
        x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)  # (B, D, 2, H, 2, W, 2, C)
        x = x.reshape(b, 2 * d, 2 * h, 2 * w, self.out_channels)
        return x.movedim(-1, 1)
