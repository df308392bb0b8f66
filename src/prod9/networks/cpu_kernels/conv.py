"""A 3D convolution that is as fast for one volume as it is for two."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.networks.cpu_kernels import applies

SLOW_BELOW = 20480
"""PyTorch leaves oneDNN for a loop of its own where B = 1 and C * D * H is at most this."""


class Conv3d(nn.Conv3d):
    """``nn.Conv3d`` with an odd kernel, stride 1 and a padding that keeps the sides."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias
        )

    def forward(self, input: Tensor) -> Tensor:
        """(B, C_in, D, H, W) -> (B, C_out, D, H, W)."""
        b, c, d, h = input.shape[:4]
        pad = self.kernel_size[0] // 2
        if not (b == 1 and d > 1 and pad and c * d * h <= SLOW_BELOW and applies(input)):
            return super().forward(input)
        # As a batch of two slabs, which overlap by what the kernel reaches: the same sums.
        half = (d + 1) // 2
        reach = half + 2 * pad
        x = F.pad(input, (0, 0, 0, 0, pad, pad))
        slabs = torch.cat([x[:, :, :reach], x[:, :, d - half : d - half + reach]])
        first, second = F.conv3d(slabs, self.weight, self.bias, padding=(0, pad, pad)).split(1)
        return torch.cat([first, second[:, :, 2 * half - d :]], 2)
