"""Count the arithmetic of a piece of work while it runs."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from prod9.planning.flops import operation_flops


class FlopCounter(TorchDispatchMode):
    """Adds up what convolutions and matrix products need within the block, forward and backward.

    PyTorch's own ``FlopCounterMode`` knows the formulas, but also follows which module calls, which
    it cannot do where a step asks for some gradients and not for others. oneDNN's linear layer,
    which has no formula there, is counted as the matrix product that it is; the CPU's fused
    attention is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if "scaled_dot_product" not in func._schema.name:
            self.total += operation_flops(func, args, kwargs or {}, out)
        return out


def flops_of(work: Callable[[], object]) -> float:
    """Call ``work`` once and count."""
    with FlopCounter() as counter:
        work()
    return float(counter.total)
