"""A 3D convolution that is as fast for one volume as for two, and backward as forward."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.networks.cpu_kernels import applies
from prod9.networks.cpu_kernels.library import exchanged, prefers

SLOW_BELOW = 20480
"""PyTorch leaves oneDNN for a loop of its own where B = 1 and C * D * H is at most this."""
SMALL_GRID = 1000
"""Cells up to which a weight's gradient may be faster as a convolution."""


class _Convolution(torch.autograd.Function):
    """``F.conv3d`` with stride 1, whose weight's gradient is :func:`exchanged`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv3d(x, weight, bias, padding=padding)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight) = grad_outputs, ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            # Not torch.nn.grad.conv3d_input, which forgets that x has its features last.
            settings = None, [1] * 3, ctx.padding, [1] * 3, False, [0] * 3, 1
            only = [True, False, False]
            of_x = torch.ops.aten.convolution_backward(gradient, x, weight, *settings, only)[0]
        if ctx.needs_input_grad[1]:
            of_weight = exchanged(x, gradient, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3, 4))
        return of_x, of_weight, of_bias, None


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
            return self._convolved(input, (pad, pad, pad))
        # As a batch of two slabs, which overlap by what the kernel reaches: the same sums.
        half = (d + 1) // 2
        reach = half + 2 * pad
        x = F.pad(input, (0, 0, 0, 0, pad, pad))
        slabs = torch.cat([x[:, :, :reach], x[:, :, d - half : d - half + reach]])
        first, second = self._convolved(slabs, (0, pad, pad)).split(1)
        return torch.cat([first, second[:, :, 2 * half - d :]], 2)

    def _convolved(self, x: Tensor, padding: tuple[int, ...]) -> Tensor:
        if (
            self.weight.requires_grad
            and torch.is_grad_enabled()
            and x[0, 0].numel() <= SMALL_GRID
            and applies(x)
            and self.weight.dtype == torch.float32
            and prefers("convolution")
        ):
            return cast(Tensor, _Convolution.apply(x, self.weight, self.bias, padding))
        return F.conv3d(x, self.weight, self.bias, padding=padding)
