"""A step's randomness is a function of (seed, step, rank), whatever came before."""

import random

import numpy as np
import torch

from prod9.runtime.random_streams import seed_step, step_stream


def drawn() -> list[float]:
    return [torch.rand(()).item(), np.random.rand(), random.random()]  # noqa: NPY002


def test_the_shared_generators_depend_on_the_step_alone() -> None:
    seed_step(1, 2, 3)
    first = drawn()
    drawn()
    seed_step(1, 2, 3)
    assert drawn() == first
    for other in ((0, 2, 3), (1, 3, 3), (1, 2, 0)):
        seed_step(*other)
        assert all(a != b for a, b in zip(drawn(), first, strict=True))


def test_streams_depend_on_the_step_alone() -> None:
    def rows(*key: int) -> list[float]:
        return torch.rand(4, generator=step_stream(*key)).tolist()

    assert rows(1, 2, 3) == rows(1, 2, 3)
    assert len({tuple(rows(*key)) for key in ((1, 2, 3), (0, 2, 3), (1, 3, 3), (1, 2, 0))}) == 4
