"""RMS norm followed by a rotation, as one operation: what attention does to queries and keys."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prod9.networks.cpu_kernels import applies
from prod9.networks.rotary import rotate


class _NormRotate(torch.autograd.Function):
    """``rotate(rms_norm(x) * weight)`` in fp32 on a CPU, in half as many passes over the data.

    x is (B, heads, N, dim), weight (dim,), cos and sin (N, dim / 2).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float
    ) -> Tensor:
        mean_square = torch.linalg.vecdot(x, x)[..., None] / x.shape[-1]
        rstd = (mean_square + eps).rsqrt()  # (B, heads, N, 1)
        ctx.save_for_backward(x, weight, cos, sin, rstd)
        # With y = rstd x, halves 1 and 2: (cos w1 y1 - sin w2 y2, sin w1 y1 + cos w2 y2).
        w1, w2 = weight.chunk(2)
        x1, x2 = x.chunk(2, -1)
        turned = x * torch.cat([cos * w1, cos * w2], -1)
        first, second = turned.chunk(2, -1)
        first.addcmul_(x2, sin * w2, value=-1)
        second.addcmul_(x1, sin * w1)
        return turned.mul_(rstd)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight, cos, sin, rstd) = grad_outputs, ctx.saved_tensors
        # Turned back: the gradient g of w y. (A new tensor in x's layout.)
        g1, g2 = gradient.chunk(2, -1)
        back = gradient * torch.cat([cos, cos], -1)
        first, second = back.chunk(2, -1)
        first.addcmul_(g2, sin)
        second.addcmul_(g1, sin, value=-1)
        # dy = w g, and with y = rstd x: dx = rstd (dy - y mean(dy y)).
        back.mul_(rstd)  # rstd g
        product = back * x  # g y
        of_weight = product.sum((0, 1, 2))
        mean = (product @ weight)[..., None] / x.shape[-1]
        return back.mul_(weight).addcmul_(x, -mean * rstd.square()), of_weight, None, None, None


class NormRotate(nn.RMSNorm):
    """Queries or keys of (B, heads, N, dim): normalised, then turned by their positions' angles."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "b heads n dim"], cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "b heads n dim"]:
        """Turn the pairs (x_i, x_{i + dim/2}) of the normalised x by angles of shape (n, dim / 2).

        Under autocast too it computes in fp32 at least, and returns x's own type.
        """
        if not applies(x):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            return rotate(super().forward(wide), cos, sin).to(x.dtype)
        eps = torch.finfo(x.dtype).eps  # as nn.RMSNorm's own
        return cast(Tensor, _NormRotate.apply(x, self.weight, cos, sin, eps))
