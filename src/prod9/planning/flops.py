"""How much arithmetic an operation of PyTorch is; a multiply-add is two."""

from collections.abc import Callable
from typing import Any, cast

from torch.utils.flop_counter import flop_registry

_ATTENTION = "scaled_dot_product"


def product_flops(func: Any, args: Any, kwargs: Any, out: Any) -> float | None:
    """Return what a convolution or matrix product needs; None for any other operation.

    oneDNN's linear layer, which PyTorch has no formula for, is the matrix product that it is.

    Args:
        func: the operation, as a ``TorchDispatchMode`` is given it.
        args: what it was called with.
        kwargs: the same, by name.
        out: what it returned.
    """
    formula = flop_registry.get(func.overloadpacket)
    if formula is not None:
        return float(cast(Callable[..., float], formula)(*args, **kwargs, out_val=out))
    if func._schema.name == "mkldnn::_linear_pointwise":
        x, weight = args[:2]  # (..., in) and (out, in)
        return 2.0 * x.numel() * weight.shape[0]
    return None


def operation_flops(func: Any, args: Any, kwargs: Any, out: Any) -> float:
    """Return what a convolution, matrix product or fused attention needs; 0 for all else.

    Attention is two products, and five where its gradient computes the first one again. The
    arguments are those of :func:`product_flops`.
    """
    name = func._schema.name
    if _ATTENTION in name:
        backward = "backward" in name
        query, key = (args[1], args[2]) if backward else (args[0], args[1])
        return (10.0 if backward else 4.0) * query.numel() * key.shape[-2]
    return product_flops(func, args, kwargs, out) or 0.0
