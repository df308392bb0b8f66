"""Which items make up which batch: a function of (seed, epoch) alone."""

import signal
from collections.abc import Iterator, Sized
from types import FrameType
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from prod9.config.data import SourceConfig
from prod9.errors import Prod9Error
from prod9.runtime.distributed import rank, world_size

T = TypeVar("T")


class BatchKey(NamedTuple):
    """What a data set needs to make one batch.

    The epoch is in it because a persistent worker's copy of the data set is not told of a new one.
    """

    epoch: int
    indices: list[int]


class EpochBatches(Sampler[BatchKey]):
    """Yields the batches of an epoch, on each process of a distributed run its own share.

    Training shuffles by (seed, epoch). Batch j of a step is the same whatever the number of
    processes: ``order[j * size : (j + 1) * size]`` with size = ``batch_size`` times the number of
    processes, of which process r of W takes every W-th, beginning with the r-th. The last short
    batch is left out if there is a full one; else the one batch loses what cannot be shared evenly.

    Otherwise process r takes every W-th item, in order. Nothing is left out or taken twice, so that
    one process may have a batch more than another.
    """

    def __init__(self, count: int, batch_size: int, *, train: bool, seed: int) -> None:
        self.count, self.batch_size, self.train, self.seed = count, batch_size, train, seed
        self.epoch = 0
        self._begin = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; Lightning calls this too."""
        self.epoch = epoch

    def begin_at(self, epoch: int, batch: int) -> None:
        """Choose the epoch of the next iteration, and leave out its first ``batch`` batches.

        The length stays that of a whole epoch.
        """
        self.epoch, self._begin = epoch, (epoch, batch)

    def __iter__(self) -> Iterator[BatchKey]:
        epoch, size, world = self.epoch, self.batch_size, world_size()
        if not self.train:
            own = range(rank(), self.count, world)
            for start in range(0, len(own), size):
                yield BatchKey(epoch, list(own[start : start + size]))
            return
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        whole = size * world
        first = self._begin[1] if self._begin[0] == epoch else 0
        for start in range(first * whole, len(self) * whole, whole):
            batch = order[start : start + whole]
            even = len(batch) // world * world
            yield BatchKey(epoch, batch[rank() : even : world].tolist())

    def __len__(self) -> int:
        if self.train:
            return max(min(self.count, 1), self.count // (self.batch_size * world_size()))
        return -(-len(range(rank(), self.count, world_size())) // self.batch_size)


def _leave_signals_to_the_parent(worker: int) -> None:
    """Let what reaches all processes of a job end the parent alone; it ends the workers.

    It does so by a second SIGTERM, where one does not come home by itself.
    """

    def first(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, first)
    for name in ("SIGINT", "SIGUSR1"):  # Windows has no SIGUSR1
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def batches_of(
    source: Dataset[T], config: SourceConfig, *, train: bool, seed: int
) -> DataLoader[T]:
    """Return batches of ``source``; shuffled by (seed, epoch) in training, else in order.

    ``source`` has a length, and makes a whole batch of a :class:`BatchKey`.

    It shares items among the processes of a distributed run itself: Lightning's
    ``use_distributed_sampler`` must be off.

    Raises:
        Prod9Error: there are fewer items than processes.
    """
    count = len(cast(Sized, source))
    if count < world_size():
        raise Prod9Error(
            f"a split of {count} items cannot be shared by {world_size()} processes; start "
            "fewer of them (trainer.devices), or use more data."
        )
    return DataLoader(
        source,
        batch_size=None,  # the sampler yields whole batches' keys, the data set makes them
        sampler=EpochBatches(count, config.batch_size, train=train, seed=seed),
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def set_epoch(loader: DataLoader[T], epoch: int, batch: int = 0) -> None:
    """Choose the epoch (order and augmentation) and the first batch of a loader's next iteration.

    Lightning chooses the epoch itself, except before the first batches of a resumed run are
    fetched: call this where such a loader is made.
    """
    cast(EpochBatches, loader.sampler).begin_at(epoch, batch)
