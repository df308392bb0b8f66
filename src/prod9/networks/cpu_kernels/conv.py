"""A 3D convolution that is as fast for one volume as it is for two."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOW_BELOW = 20480
"""PyTorch leaves oneDNN for a loop of its own where B = 1 and C * D * H is at most this."""


def _in_two(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Convolve (1, C, D, H, W) as a batch of two slabs, which overlap by what the kernel reaches.

    The same sums in the same order of magnitude of work: only the slabs' borders are copied twice.
    """
    depth = x.shape[2]
    half = (depth + 1) // 2
    x = F.pad(x, (0, 0, 0, 0, padding, padding))
    reach = half + 2 * padding
    slabs = torch.cat([x[:, :, :reach], x[:, :, depth - half : depth - half + reach]])
    first, second = F.conv3d(slabs, weight, bias, padding=(0, padding, padding)).split(1)
    return torch.cat([first, second[:, :, 2 * half - depth :]], 2)


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
        if (
            b == 1
            and d > 1
            and self.kernel_size[0] > 1
            and c * d * h <= _SLOW_BELOW
            and input.device.type == "cpu"
            and input.dtype == torch.float32
            and not torch.compiler.is_compiling()
        ):
            return _in_two(input, self.weight, self.bias, self.kernel_size[0] // 2)
        return super().forward(input)
