"""The profile times what it says, and calls alone what the step called."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import profile
from benchmarks.profile import OperationTimer
from benchmarks.results import GoalResult
from prod9.networks.cpu_kernels import library
from prod9.networks.cpu_kernels.linear import Linear


@pytest.fixture(params=[True, False], ids=["oneDNN", "MKL"], autouse=True)
def library_of_products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either library multiplies; nothing is measured within what is timed."""
    found = {"output": request.param, "weight": request.param, "convolution": False}
    monkeypatch.setattr(library, "choice", lambda: found)


def small_step() -> Tensor:
    x = torch.randn(2, 4, 8, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(6, 4, 3, 3, 3, requires_grad=True)
    layer = Linear(6, 5)
    q = torch.randn(1, 2, 16, 8)
    y = layer(F.conv3d(x, weight, padding=1).flatten(2).mT)
    loss = y.sum() + F.scaled_dot_product_attention(q, q, q).sum()
    loss.backward()
    return loss


def test_operations_are_told_apart_and_counted() -> None:
    timer = OperationTimer()
    with timer:
        small_step()
        small_step()
    found = {(o.name, len(o.seconds)): o for o in timer.operations.values()}
    # forward: 2 * 2 * 512 * 6 * (4 * 27) operations
    forward = found["aten::convolution", 2]
    assert forward.flops == 2 * 2 * 512 * 6 * 4 * 27
    assert forward.sides[:2] == [(2, 4, 8, 8, 8), (6, 4, 3, 3, 3)]
    # the input needs no gradient: the weight's alone is as much as the forward pass
    assert found["aten::convolution_backward", 2].flops == forward.flops
    attention = found["aten::_scaled_dot_product_flash_attention_for_cpu", 2]
    assert attention.flops == 2 * 2 * (2 * 16 * 16 * 8)
    # forward, gradient of the input, gradient of the weight: which library has each depends on the
    # processor, but it is three products of as much arithmetic
    products = [o for o in timer.operations.values() if profile.KINDS[o.name] == "matrix products"]
    assert [o.flops for o in products] == [2 * 2 * 512 * 6 * 5] * 3
    assert all(len(o.seconds) == 2 and min(o.seconds) > 0 for o in products)


def test_every_way_of_an_operation_gives_the_same_numbers() -> None:
    timer = OperationTimer()
    with timer:
        small_step()
    for operation in timer.operations.values():
        if profile.KINDS[operation.name] == "attention":
            continue
        results = [way() for way in profile.ways(operation)]
        assert len(results) >= 2
        first, *others = [
            [
                r.flatten()
                for r in (result if isinstance(result, tuple) else (result,))
                if r is not None
            ]
            for result in results
        ]
        for each in others:
            torch.testing.assert_close(each, first, rtol=1e-4, atol=1e-4)


def test_figures_and_goals() -> None:
    def watched(timer: OperationTimer) -> None:
        with timer:
            small_step()

    figures = profile.figures_of(small_step, watched)
    assert abs(sum(figures["shares"].values()) - 1) < 1e-9
    assert set(figures["share_of_ceiling"]) == {"convolutions", "matrix products"}
    milliseconds = [row["milliseconds"] for row in figures["slowest"]]
    assert milliseconds == sorted(milliseconds, reverse=True)

    def met(goals: list[GoalResult]) -> list[bool]:
        return [goal.met for goal in goals]

    shares = {"convolutions": 0.7, "matrix products": 0.05, "everything else": 0.25}
    ceiling = {"convolutions": 0.7, "matrix products": 0.1}
    assert met(profile.goals_of({"shares": shares, "share_of_ceiling": ceiling})) == [True, True]
    shares, ceiling = shares | {"everything else": 0.26}, ceiling | {"convolutions": 0.69}
    assert met(profile.goals_of({"shares": shares, "share_of_ceiling": ceiling})) == [False, False]
