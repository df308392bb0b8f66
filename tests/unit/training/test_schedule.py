import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prod9.config.training import SchedulerConfig
from prod9.training.optimizer import rate_at, scheduler

COSINE = SchedulerConfig(name="cosine", warmup_steps=4, min_ratio=0.1)
CONSTANT = SchedulerConfig(name="constant", warmup_steps=4)


def test_warm_up_is_linear_and_never_zero() -> None:
    for config in (COSINE, CONSTANT):
        assert [rate_at(step, 24, config) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_cosine() -> None:
    # From the peak at step 4 to a tenth of it at step 24.
    assert rate_at(4, 24, COSINE) == 1.0
    assert rate_at(14, 24, COSINE) == pytest.approx(0.55)
    assert rate_at(9, 24, COSINE) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert rate_at(24, 24, COSINE) == pytest.approx(0.1)
    assert rate_at(99, 24, COSINE) == pytest.approx(0.1)


def test_constant() -> None:
    assert {rate_at(step, 24, CONSTANT) for step in range(4, 99)} == {1.0}


@given(
    name=st.sampled_from(["constant", "cosine"]),
    warmup=st.integers(0, 50),
    total=st.integers(1, 60),
    least=st.floats(0, 1),
)
def test_bounds(name, warmup, total, least):
    config = SchedulerConfig(name=name, warmup_steps=warmup, min_ratio=least)
    rates = [rate_at(step, total, config) for step in range(total + 2)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[0] > 0
    start = min(warmup, total)
    assert rates[:start] == sorted(rates[:start])
    assert rates[start:] == sorted(rates[start:], reverse=True)


def test_the_optimizer_follows() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.2)
    schedule = scheduler(optimizer, 10, COSINE)
    for step in range(10):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * rate_at(step, 10, COSINE))
        optimizer.step()
        schedule.step()
