"""A linear layer whose matrix products are computed by the faster of two libraries.

On a CPU, PyTorch gives fp32 matrix products to MKL and convolutions to oneDNN. Which of them
multiplies matrices faster depends on processor, instruction set and direction: MKL by a few per
cent on Intel's, oneDNN more than twice with AVX-512 on others. It is measured once
(:mod:`prod9.networks.cpu_kernels.library`). The numbers are the same up to the order of summation.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.networks.cpu_kernels import applies
from prod9.networks.cpu_kernels.library import onednn_product, prefers

_FEWEST_ROWS = 16
"""Below, calling oneDNN costs more than it saves."""


class _OneDNNLinear(torch.autograd.Function):
    """The three products of a linear layer: output, input's gradient, weight's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight) = grad_outputs, ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = onednn_product(gradient, weight.t(), None)
        rows = gradient.flatten(0, -2)  # (M, out)
        if ctx.needs_input_grad[1]:
            x = x.flatten(0, -2)
            # A sum over so many rows may be faster in MKL where the other two are not.
            own = prefers("weight")
            of_weight = onednn_product(rows.t(), x.t(), None) if own else rows.t() @ x
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
            and prefers("output")
        ):
            return cast(Tensor, _OneDNNLinear.apply(input, self.weight, self.bias))
        return self.plain(input)

    def plain(self, input: Tensor) -> Tensor:
        """Compute as ``nn.Linear`` does: better where the number of rows changes at every call.

        (oneDNN prepares a program for every shape that it meets.)
        """
        return F.linear(input, self.weight, self.bias)
