"""Floating point operations of one PyTorch operation; a multiply-add counts as two."""

from typing import Any

from torch.utils.flop_counter import flop_registry


def operation_flops(func: Any, args: Any, kwargs: Any, out: Any) -> float:
    """Return what a convolution, matrix product or attention needs; 0 for all else.

    The formulas are those of PyTorch's ``FlopCounterMode``, which has none for two operations of
    the CPU: attention (two products; five in the backward pass, which computes the first again) and
    oneDNN's linear layer. The arguments are those of a ``TorchDispatchMode``, and the result.
    """
    name = func._schema.name
    if "scaled_dot_product" in name:
        backward = "backward" in name
        query, key = (args[1], args[2]) if backward else (args[0], args[1])
        return (10.0 if backward else 4.0) * query.numel() * key.shape[-2]
    if name == "mkldnn::_linear_pointwise":
        x, weight = args[:2]  # (..., in) and (out, in)
        return 2.0 * x.numel() * weight.shape[0]
    formula = flop_registry.get(func.overloadpacket)
    return float(formula(*args, **kwargs, out_val=out)) if formula else 0.0
