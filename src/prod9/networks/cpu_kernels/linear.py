"""A linear layer that multiplies matrices as fast as the processor's convolutions do.

On a CPU, PyTorch gives fp32 matrix products to MKL and convolutions to oneDNN. Where both are built
in, oneDNN's product of the same matrices is faster: a little on AVX2, more than twice on AVX-512 of
a processor that MKL does not favour. The numbers are the same up to the order of summation.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.networks.cpu_kernels import applies

_FEWEST_ROWS = 16
"""Below, calling oneDNN costs more than it saves."""


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X @ weight.T + bias by oneDNN, with no gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    """The three products of a linear layer: output, input's gradient, weight's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight) = grad_outputs, ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _product(gradient, weight.t(), None)
        rows = gradient.flatten(0, -2)  # (M, out)
        if ctx.needs_input_grad[1]:
            x = x.flatten(0, -2)
            # A sum over so many rows is faster in oneDNN with AVX-512 alone.
            wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
            of_weight = _product(rows.t(), x.t(), None) if wide else rows.t() @ x
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_x, of_weight, of_bias


class Linear(nn.Linear):
    """``nn.Linear``: (..., in) -> (..., out), same parameters, same initial values."""

    def forward(self, input: Tensor) -> Tensor:
        """Shapes as in the class's docstring."""
        if (
            input.ndim > 1
            and input.numel() >= _FEWEST_ROWS * self.in_features
            and self.weight.dtype == torch.float32
            and applies(input)
            and torch.backends.mkldnn.is_available()
        ):
            return cast(Tensor, _OneDNNLinear.apply(input, self.weight, self.bias))
        return self.plain(input)

    def plain(self, input: Tensor) -> Tensor:
        """Compute as ``nn.Linear`` does: better where the number of rows changes at every call.

        (oneDNN prepares a program for every shape that it meets.)
        """
        return F.linear(input, self.weight, self.bias)
