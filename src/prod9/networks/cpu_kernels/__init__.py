"""Operations that a CPU computes faster in another layout or library."""

import torch
from torch import Tensor


def applies(x: Tensor) -> bool:
    """Whether ``x`` is fp32 on a CPU, outside autocast and outside a compiled model.

    Everywhere else these layers compute as PyTorch does; a compiler fuses operations itself.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )
