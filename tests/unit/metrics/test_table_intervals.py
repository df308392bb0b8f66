"""Bootstrap intervals over subjects and trainings: closed forms."""

import math

import pytest
import torch

from prod9.metrics.bootstrap import bootstrap_interval, subject_interval, table_interval


def test_a_table_of_one_training_is_as_wide_as_the_plain_bootstrap() -> None:
    values = torch.randn(60, generator=torch.Generator().manual_seed(0))
    low, high = table_interval(values[None], seed=1) or (0, 0)
    below, above = bootstrap_interval(values, seed=2)
    assert high - low == pytest.approx(above - below, rel=0.1)
    assert high - low == pytest.approx(2 * 1.96 * float(values.std()) / math.sqrt(60), rel=0.1)
    assert low < float(values.mean()) < high


def test_trainings_that_differ_widen_it() -> None:
    values = torch.zeros(2, 50)
    values[1] = 1  # every subject is 0 in one training and 1 in the other
    assert table_interval(values, seed=0) == (0, 1)
    assert table_interval(values[1:], seed=0) == (1, 1)
    assert table_interval(values[:, :1], seed=0) is None


def test_subjects_are_drawn_whole() -> None:
    values = torch.tensor([[3.0, 0.0], [1.0, 1.0]], dtype=torch.float64)  # number and sum, each

    def mean(drawn: torch.Tensor) -> torch.Tensor:
        count, total = (drawn @ values).unbind(-1)
        return total / count

    assert subject_interval(mean, 2, seed=0) == (0, 1)
    assert subject_interval(mean, 1, seed=0) is None
    assert subject_interval(lambda drawn: drawn[:, 0] * math.nan, 5, seed=0) is None
