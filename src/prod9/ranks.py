"""Which process of a distributed run this is, and what all of them agree on.

Everything here is a no-op in a run of one process. Collectives are called by all processes in the
same order, or nobody gets past them.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TypeVar

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
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


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


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in one message per type."""
    if world_size() == 1:
        return
    for dtype in {tensor.dtype for tensor in tensors}:
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in alike])
        dist.all_reduce(flat)
        flat /= world_size()
        parts = flat.split([tensor.numel() for tensor in alike])
        for tensor, mean in zip(alike, parts, strict=True):
            tensor.detach().copy_(mean.view_as(tensor))
