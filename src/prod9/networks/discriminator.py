"""Multi-scale patch discriminator (Wang et al. 2018, pix2pixHD), in three dimensions."""

import torch.nn.functional as F
from torch import Tensor, nn

from prod9.networks.cpu_kernels.conv import Conv3d
from prod9.networks.cpu_kernels.norm import group_count


class PatchDiscriminator(nn.Sequential):
    """Classify overlapping patches: (B, C, D, H, W) -> one logit per patch (B, 1, d, h, w).

    Group norm in place of batch norm: the logits of a volume do not depend on its batch, so real
    and fake can share one pass, and several devices need no synchronisation.
    """

    def __init__(self, in_channels: int, channels: int, num_layers: int) -> None:
        layers: list[nn.Module] = [
            nn.Conv3d(in_channels, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        width = channels
        for layer in range(1, num_layers + 1):
            wider = channels * min(2**layer, 8)
            stride = 2 if layer < num_layers else 1
            layers += [
                nn.Conv3d(width, wider, 3, stride=stride, padding=1, bias=False),
                nn.GroupNorm(group_count(wider, 8), wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        super().__init__(*layers, Conv3d(width, 1, 3))


class MultiScaleDiscriminator(nn.Module):
    """``num_d`` patch discriminators, each looking at half the resolution of the one before."""

    def __init__(self, in_channels: int, channels: int, num_layers_d: int, num_d: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            PatchDiscriminator(in_channels, channels, num_layers_d) for _ in range(num_d)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return one logit map per scale, finest first."""
        return [patches(F.avg_pool3d(x, 2**i) if i else x) for i, patches in enumerate(self.scales)]
