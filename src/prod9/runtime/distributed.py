"""Which process of a distributed run this is, and what all of them agree on.

Everything here is a no-op in a run of one process. Collectives are called by all processes in the
same order, or nobody gets past them.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return the number of this process, 0 to :func:`world_size` - 1."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if _joined() else 1


def is_main() -> bool:
    """Whether this is the process that writes files and speaks."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes, however long it takes: not on the device, whose patience is short."""
    total(torch.zeros(1))


@contextmanager
def main_first() -> Generator[None]:
    """Let the main process through the block first, the others when it is done.

    For what the first one makes and the others find made: downloads, caches, folders.
    """
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def share_of(items: Sequence[T]) -> Sequence[T]:
    """Return every ``world_size``-th item, beginning with this process's own."""
    return items[rank() :: world_size()]


def total(value: Tensor) -> Tensor:
    """Return the sum of ``value`` over all processes (of equal shapes); no gradient."""
    if world_size() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


def most(number: int) -> int:
    """Return the largest of all processes' numbers; waits for the device, where there is one."""
    if world_size() == 1:
        return number
    numbers: list[int] = [0] * world_size()
    dist.all_gather_object(numbers, number)
    return max(numbers)


def any_of(flags: Sequence[bool]) -> list[bool]:
    """Return which flags any process has set; the same everywhere. All give equally many.

    For what processes see on a shared disk, which may show it to one before the other.
    """
    return (total(torch.tensor(flags, dtype=torch.int32)) > 0).tolist()


class _Total(torch.autograd.Function):
    """Sum over processes, in both directions: what reached every sum goes back to every part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return total(x)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> Tensor:
        return total(grad_outputs[0])


def total_with_gradient(value: Tensor) -> Tensor:
    """Return the sum of ``value`` over all processes; the gradient is that of all their losses.

    All processes must differentiate it, as often and in the same order.
    """
    return value if world_size() == 1 else cast(Tensor, _Total.apply(value))


def mean(value: Tensor) -> Tensor:
    """Return the mean of ``value`` over all processes; no gradient."""
    return value if world_size() == 1 else total(value) / world_size()


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in one message per type."""
    if world_size() == 1:
        return
    # In the order of the tensors: sets have another one in every process.
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [tensor.detach() for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])
        dist.all_reduce(flat)
        flat /= world_size()
        parts = flat.split([tensor.numel() for tensor in alike])
        for tensor, part in zip(alike, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def from_main(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by the main process's."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


def of_main(value: T) -> T:
    """Return the main process's ``value``; what the others give is not looked at."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, 0)
    return values[0]


def rand(
    count: int,
    *rest: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw uniform numbers for this process's samples of a batch of ``count`` over all processes.

    Sample i of the batch belongs to process i mod :func:`world_size`. From equal generators all
    processes together draw what one would draw for the whole batch.

    Returns:
        Shape (own samples, *rest), in [0, 1).
    """
    drawn = torch.rand(count, *rest, generator=generator, device=device)
    return drawn[rank() :: world_size()]
