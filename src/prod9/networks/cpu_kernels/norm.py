"""Group norm followed by SiLU, as one operation that keeps one tensor for the backward pass."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.networks.cpu_kernels import applies


def group_count(channels: int, most: int) -> int:
    """Return the groups of a norm over ``channels``: the largest divisor of at most ``most``.

    A group has at least two channels: on a grid of one cell, one value alone has no spread.
    """
    most = max(1, min(most, channels // 2))
    return max(g for g in range(1, most + 1) if channels % g == 0)


class _NormSiLU(torch.autograd.Function):
    """Group norm and SiLU of (B, C, *space) in fp32 on a CPU.

    Autograd would keep the input and the normalised tensor; the second is cheap to compute again.
    The norm's gradient is written out in passes over whole tensors: with features last and few
    channels, PyTorch's own takes several times as long.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        b, c, n = x.shape[0], x.shape[1], x[0, 0].numel()
        z, mean, rstd = torch.native_group_norm(x, weight, bias, b, c, n, groups, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.groups, ctx.eps = groups, eps
        return F.silu(z, inplace=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight, bias, mean, rstd) = grad_outputs, ctx.saved_tensors
        (b, c), groups, n = x.shape[:2], ctx.groups, x[0, 0].numel()
        axes = tuple(range(2, x.ndim))
        per_channel = (b, c, *[1] * len(axes))
        z = torch.native_group_norm(x, weight, bias, b, c, n, groups, ctx.eps)[0]
        # One layout for all that follows: mixed ones are ten times slower.
        last = x.ndim == 5 and x.is_contiguous(memory_format=torch.channels_last_3d)
        layout = torch.channels_last_3d if last else torch.contiguous_format
        gradient = gradient.contiguous(memory_format=layout)
        gradient = torch.ops.aten.silu_backward.grad_input(gradient, z, grad_input=z)
        # With x^ = (x - m) r, in a group of k values: dx = r (g w - mean(g w) - x^ mean(g w x^)).
        sum_g = gradient.sum(axes)  # (B, C)
        sum_gx = (gradient * x).sum(axes)
        mean, rstd = mean[..., None], rstd[..., None]  # (B, groups, 1)
        by_group = (b, groups, c // groups)
        sum_gxhat = (sum_gx.view(by_group) - mean * sum_g.view(by_group)) * rstd
        w = weight.view(1, groups, -1)
        k = n * (c // groups)
        first = (w * sum_g.view(by_group)).sum(-1, keepdim=True) / k
        second = (w * sum_gxhat).sum(-1, keepdim=True) / k
        of_g = (rstd * w).expand(by_group).reshape(per_channel)
        of_x = (-rstd * rstd * second).expand(by_group).reshape(per_channel)
        constant = (rstd * (rstd * mean * second - first)).expand(by_group).reshape(per_channel)
        of_input = gradient.mul_(of_g).addcmul_(x, of_x).add_(constant)
        return of_input, sum_gxhat.reshape(b, c).sum(0), sum_g.sum(0), None, None


class NormSiLU(nn.GroupNorm):
    """SiLU of a group norm with at most ``groups`` groups; (B, C, D, H, W) -> the same shape."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(group_count(channels, groups), channels)

    def forward(self, input: Tensor) -> Tensor:
        """Shapes as in the class's docstring."""
        if not applies(input):
            return F.silu(super().forward(input))
        output = _NormSiLU.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        return cast(Tensor, output)
