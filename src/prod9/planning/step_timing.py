"""How long a rehearsed step takes: on this machine by trying its operations, elsewhere by rates."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from prod9.planning.recorder import Operation, Shape

_TRIES, _ENOUGH = 3, 0.02
"""An operation is tried so often, or until so many seconds were spent on it."""
_BANDWIDTH = 5e9
"""Bytes per second, for the few operations that cannot be tried alone."""

CARDS = {
    "t4": 65.0,
    "v100": 125.0,
    "rtx3090": 71.0,
    "rtx4090": 165.0,
    "a10": 125.0,
    "l4": 121.0,
    "a40": 150.0,
    "a100": 312.0,
    "l40s": 362.0,
    "h100": 989.0,
    "h200": 989.0,
}
"""Peak of the tensor units in bf16 (fp16 on T4 and V100), TFLOP/s, without sparsity, as their
makers' data sheets have it."""
SHARE_OF_PEAK = 0.25
"""What 3D convolutions of these sizes are taken to reach of it: a guess, not a measurement."""


@dataclass(frozen=True)
class Seconds:
    """Of one training step."""

    per_batch: float
    """Grows with the batch."""
    per_step: float
    """Optimizer and moving average."""

    def of(self, batch: float) -> float:
        """Return the seconds of a step whose batch is ``batch`` times as large."""
        return self.per_batch * batch + self.per_step


def replay(operations: Iterable[Operation]) -> Seconds:
    """Do every operation alone, on random numbers of its shapes, and add up.

    Python, autograd and Lightning between them are not counted, nor what one operation leaves in
    the cache for the next.
    """
    spent = {True: 0.0, False: 0.0}
    with torch.no_grad():
        for operation in operations:
            spent[operation.per_sample] += operation.calls * _seconds(operation)
    return Seconds(spent[True], spent[False])


def _seconds(operation: Operation) -> float:
    try:
        arguments, keywords = tree_map_only(
            Shape, _numbers, (operation.arguments, operation.keywords)
        )
        operation.function(*arguments, **keywords)
        best, begun = float("inf"), time.perf_counter()
        for _ in range(_TRIES):
            start = time.perf_counter()
            operation.function(*arguments, **keywords)
            end = time.perf_counter()
            best = min(best, end - start)
            if end - begun > _ENOUGH:
                break
        return best
    except (RuntimeError, IndexError, TypeError):  # needs numbers that belong together
        shapes: list[Shape] = []
        tree_map_only(Shape, shapes.append, (operation.arguments, operation.keywords))
        return sum(shape.bytes for shape in shapes) / _BANDWIDTH


def _numbers(shape: Shape) -> Tensor:
    """Return a tensor of that shape; whole numbers are 0, which is a valid index anywhere."""
    if 0 in shape.strides and shape.sides:  # one number seen in many places
        return torch.ones((), dtype=shape.dtype).expand(shape.sides)
    made: Any = torch.empty_strided(shape.sides, shape.strides, dtype=shape.dtype)
    if shape.dtype == torch.bool:
        return made.fill_(True)
    if shape.dtype.is_floating_point or shape.dtype.is_complex:
        return made.normal_()
    return made.zero_()
