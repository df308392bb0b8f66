"""Which items make up which batch: a function of (seed, epoch), and of nothing else."""

import signal
from collections.abc import Iterator
from typing import NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, Sampler

T = TypeVar("T")
BatchT_co = TypeVar("BatchT_co", covariant=True)


class BatchKey(NamedTuple):
    """What a data set needs to make one batch.

    The epoch travels with the indices because a persistent worker's copy of the data set never
    hears of a new epoch.
    """

    epoch: int
    indices: list[int]


@runtime_checkable
class BatchSource(Protocol[BatchT_co]):
    """A data set that makes whole batches, without collating item by item."""

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def __getitem__(self, key: BatchKey, /) -> BatchT_co:
        """Return the batch of the items ``key.indices``."""
        ...


class EpochBatches(Sampler[BatchKey]):
    """Yields the batches of an epoch, on each process of a distributed run its own share.

    Training shuffles by (seed, epoch) and drops the last short batch if there are more items than
    a batch holds; otherwise items come in order, all of them.
    """

    def __init__(self, count: int, batch_size: int, *, train: bool, seed: int) -> None:
        self.count, self.batch_size, self.train, self.seed = count, batch_size, train, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; Lightning calls this too."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[BatchKey]:
        epoch = self.epoch
        order = np.arange(self.count)
        if self.train:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        rank, world = _rank_and_world()
        # Every process must see equally many batches: begin again at the front where they run out.
        share = np.resize(order, world * self._share(world))[rank::world].tolist()
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield BatchKey(epoch, share[start : start + self.batch_size])

    def __len__(self) -> int:
        share = self._share(_rank_and_world()[1])
        if self.train and share > self.batch_size:
            return share // self.batch_size
        return -(-share // self.batch_size)

    def _share(self, world: int) -> int:
        return -(-self.count // world)


def _rank_and_world() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _as_it_is(batch: T) -> T:
    return batch


def _leave_interrupts_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_loader(
    source: BatchSource[T], batch_size: int, *, train: bool, seed: int, num_workers: int
) -> DataLoader[T]:
    """Return a loader of whole batches.

    It shares items among the processes of a distributed run itself: Lightning's
    ``use_distributed_sampler`` must be off.
    """
    return DataLoader(
        cast("Dataset[T]", source),
        batch_size=None,  # the sampler yields whole batches, the data set makes them
        sampler=EpochBatches(len(source), batch_size, train=train, seed=seed),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_interrupts_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def set_epoch(loader: DataLoader[T], epoch: int) -> None:
    """Choose the epoch (order and augmentation) of a loader's next iteration.

    Lightning does this itself, except before the first batches of a resumed run are fetched: call
    this where such a loader is made.
    """
    cast(EpochBatches, loader.sampler).set_epoch(epoch)
