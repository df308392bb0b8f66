"""A linear layer that multiplies matrices as fast as the processor's convolutions do.

On a CPU, PyTorch gives fp32 matrix products to MKL and convolutions to oneDNN. Where both are built
in, oneDNN's product of the same matrices is faster: a little on AVX2, more than twice on AVX-512 of
a processor that MKL does not favour. The numbers are the same up to the order of summation.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEWEST_ROWS = 16
"""Below, calling oneDNN costs more than it saves."""
_plain = False


@contextmanager
def plain_linear() -> Generator[None]:
    """Let every :class:`Linear` compute as ``nn.Linear`` does, to compare the two."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X @ weight.T + bias by oneDNN, with no gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _of_weight(gradient: Tensor, x: Tensor) -> Tensor:
    """gradient.T @ x. Summing over so many rows, oneDNN is ahead with AVX-512 alone."""
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        return _product(gradient.t(), x.t(), None)
    return gradient.t() @ x


def _available() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


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
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)  # (M, out)
        return (
            _product(gradient, weight.t(), None) if of_x else None,
            _of_weight(rows, x.flatten(0, -2)) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


class Linear(nn.Linear):
    """``nn.Linear``: (..., in) -> (..., out), same parameters, same initial values.

    Takes the fast way for fp32 on a CPU with oneDNN, outside autocast and outside a compiled model
    (which chooses for itself); ``nn.Linear``'s everywhere else.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Shapes as in the class's docstring."""
        if self._fast(input):
            return cast(Tensor, _OneDNNLinear.apply(input, self.weight, self.bias))
        return self.plain(input)

    def plain(self, input: Tensor) -> Tensor:
        """Compute as ``nn.Linear`` does: better where the number of rows changes at every call.

        (oneDNN prepares a program for every shape that it meets.)
        """
        return F.linear(input, self.weight, self.bias)

    def _fast(self, x: Tensor) -> bool:
        return (
            not torch.compiler.is_compiling()
            and not _plain
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and x.ndim > 1
            and x.numel() >= _FEWEST_ROWS * self.in_features
            and _available()
        )
