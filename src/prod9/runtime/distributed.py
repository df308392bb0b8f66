"""What the processes of a run compute together.

Everything here returns its argument in a run of one process. All processes must call a collective
function, in the same order; otherwise the ones that do wait for the others.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce as all_reduce_with_gradient

from prod9.runtime.processes import is_main as is_main
from prod9.runtime.processes import rank as rank
from prod9.runtime.processes import world_size as world_size

T = TypeVar("T")


def barrier() -> None:
    """Wait for all processes, by gloo: NCCL gives up after minutes, and encoding may take hours."""
    total(torch.zeros(1))


@contextmanager
def main_first() -> Generator[None]:
    """Run the block in the main process first, then in the others.

    For what the first process makes and the others find: downloads, caches, folders.
    """
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def share_of(items: Sequence[T]) -> Sequence[T]:
    """Return every ``world_size``-th item, beginning with number :func:`rank`."""
    return items[rank() :: world_size()]


def total(value: Tensor) -> Tensor:
    """Return the sum of ``value`` over all processes (of equal shapes); no gradient."""
    if world_size() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


def total_with_gradient(value: Tensor) -> Tensor:
    """Return the sum of ``value`` over all processes; gradients are summed over them as well.

    All processes must differentiate it, equally often and in the same order.
    """
    return value if world_size() == 1 else all_reduce_with_gradient(value)


def mean(value: Tensor) -> Tensor:
    """Return the mean of ``value`` over all processes; no gradient."""
    return value if world_size() == 1 else total(value) / world_size()


def gather(value: T) -> list[T]:
    """Return the values (any picklable object) of all processes, in the order of their ranks."""
    values: list[T] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def any_of(flags: Sequence[bool]) -> list[bool]:
    """Return which flags are set in any process. All processes give equally many.

    A shared disk may show a new file to one process before another.
    """
    return (total(torch.tensor(flags, dtype=torch.int32)) > 0).tolist()


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in one message per type."""
    if world_size() == 1:
        return
    # In the order of the tensors: the order of a set differs between processes.
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
    """Return the main process's ``value`` (any picklable object)."""
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

    Sample i of the batch belongs to process i mod :func:`world_size`. With equal generators all
    processes together draw what one would draw for the whole batch.

    Returns:
        Shape (own samples, *rest), in [0, 1).
    """
    drawn = torch.rand(count, *rest, generator=generator, device=device)
    return drawn[rank() :: world_size()]


class Means:
    """Weighted means of named values over an epoch and over all processes, in float64.

    Sums are divided by counts once, at the end. Lightning's own ``sync_dist`` rounds the number of
    samples per process down (2.6, with gloo). :meth:`add` does not wait for the device.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self._sums: Tensor | None = None
        self._names: tuple[str, ...] = ()

    def add(self, values: Mapping[str, Tensor], weight: int) -> None:
        """Add the means (scalars) of ``weight`` samples; the names are the same each time."""
        self._names = tuple(values)
        parts = [value.detach().double() * weight for value in values.values()]
        row = torch.stack([*parts, torch.full_like(parts[0], weight)])
        self._sums = row if self._sums is None else self._sums + row

    def compute(self) -> dict[str, Tensor]:
        """Return the means over all samples of all processes; all of them must call it.

        Raises:
            ValueError: nothing was added.
        """
        if self._sums is None:
            raise ValueError("no values were added")
        *sums, weight = total(self._sums).unbind()
        return {name: part / weight for name, part in zip(self._names, sums, strict=True)}
