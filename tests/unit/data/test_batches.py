"""What each process sees of an epoch."""

import signal
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from prod9.config import SourceConfig
from prod9.data import batches
from prod9.data.batches import BatchKey, EpochBatches, batches_of, set_epoch
from prod9.errors import Prod9Error


class Items(Dataset[BatchKey]):
    """Gives back what it is asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: BatchKey) -> BatchKey:
        return key


def config(batch_size: int, num_workers: int = 0) -> SourceConfig:
    return SourceConfig(dataset_name="toy", batch_size=batch_size, num_workers=num_workers)


def shares(
    count: int, size: int, world: int, *, train: bool, epoch: int = 5
) -> list[list[list[int]]]:
    """Return the batches of each process."""
    found: list[list[list[int]]] = []
    for rank in range(world):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batches, "rank", lambda rank=rank: rank)
            patch.setattr(batches, "world_size", lambda: world)
            sampler = EpochBatches(count, size, train=train, seed=3)
            sampler.set_epoch(epoch)
            own = [key.indices for key in sampler]
            assert len(sampler) == len(own)
            found.append(own)
    return found


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr(batches, "rank", lambda: rank)
    monkeypatch.setattr(batches, "world_size", lambda: world)


@given(st.integers(1, 40), st.integers(1, 4), st.sampled_from([1, 2, 3]))
def test_together_processes_see_what_one_would(count: int, size: int, world: int) -> None:
    assume(count >= size * world)
    (alone,) = shares(count, size * world, 1, train=True)
    together = shares(count, size, world, train=True)
    for number, batch in enumerate(alone):
        # Process r of W takes every W-th item of the batch, beginning with the r-th.
        assert [own[number] for own in together] == [batch[r::world] for r in range(world)]
    assert len(alone) == count // (size * world)
    assert {len(own) for own in together} == {len(alone)}


def test_training_shuffles_by_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochBatches(40, 4, train=True, seed=seed)
        sampler.set_epoch(epoch)
        return [item for key in sampler for item in key.indices]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(each) == list(range(40)) for each in orders)
    assert len({tuple(each) for each in (*orders, range(40))}) == 5  # no two alike, none unshuffled
    assert order(1, 0) == orders[2]


def test_a_short_epoch_is_shared_evenly() -> None:
    first, second = shares(7, 8, 2, train=True)
    assert [len(first), len(second)] == [1, 1]
    assert [len(first[0]), len(second[0])] == [3, 3]
    assert len({*first[0], *second[0]}) == 6
    assert sorted(shares(7, 8, 1, train=True)[0][0]) == list(range(7))


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5))
def test_validation_sees_every_item_once(count: int, size: int, world: int) -> None:
    own = shares(count, size, world, train=False)
    flat = [[item for batch in parts for item in batch] for parts in own]
    assert flat == [list(range(count))[rank::world] for rank in range(world)]
    assert all(len(batch) == size for parts in own for batch in parts[:-1])


def test_an_epoch_can_be_begun_in_its_middle() -> None:
    sampler = EpochBatches(11, 2, train=True, seed=0)
    sampler.set_epoch(4)
    whole = list(sampler)
    sampler.begin_at(4, 3)
    sampler.set_epoch(4)  # Lightning does so once more
    assert list(sampler) == whole[3:]
    assert len(sampler) == len(whole) == 5
    sampler.set_epoch(5)
    assert [key.epoch for key in sampler] == [5] * 5
    sampler.begin_at(4, 5)
    assert list(sampler) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_begins_where_it_is_told(workers: int) -> None:
    def loader() -> object:
        return batches_of(Items(9), config(2, workers), train=True, seed=0)

    first = loader()
    set_epoch(first, 2)
    whole = list(first)
    second = loader()
    set_epoch(second, 2, 1)
    assert list(second) == whole[1:]
    set_epoch(second, 3)
    assert len(list(second)) == 4


def test_fewer_items_than_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    as_process(monkeypatch, 0, 3)
    batches_of(Items(3), config(1), train=False, seed=0)
    with pytest.raises(Prod9Error, match="a split of 2 items cannot be shared by 3 processes"):
        batches_of(Items(2), config(1), train=False, seed=0)


def handlers(set_up: Callable[[int], None]) -> list[object]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    try:
        set_up(0)
        signal.raise_signal(signal.SIGTERM)  # the first one is the parent's business
        return [signal.getsignal(number) for number in numbers]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_a_worker_leaves_signals_to_the_parent() -> None:
    found = handlers(batches._leave_signals_to_the_parent)
    assert found == [signal.SIG_IGN, signal.SIG_DFL, signal.SIG_IGN]
