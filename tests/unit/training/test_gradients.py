import math

import pytest
import torch
from torch import nn

from prod9.training.optimizer import clip


def parameters() -> list[nn.Parameter]:
    """Return three parameters; the gradients of two have norms 3 and 4, the third has none."""
    found = [nn.Parameter(torch.zeros(n)) for n in (9, 2, 1)]
    found[0].grad = torch.ones(9)
    found[1].grad = torch.tensor([0.0, -4.0])
    return found


@pytest.mark.parametrize(("limit", "after"), [(0.0, 5.0), (2.0, 2.0), (7.0, 5.0)])
def test_the_norm_before_clipping_is_returned(limit: float, after: float) -> None:
    own = parameters()
    assert float(clip(own, limit)) == pytest.approx(5.0)
    left = [float(p.grad.norm()) for p in own if p.grad is not None]
    assert math.hypot(*left) == pytest.approx(after, rel=1e-5)
    assert left[0] / left[1] == pytest.approx(3 / 4)


def test_gradients_that_overflowed_are_told() -> None:
    own = parameters()
    own[0].grad = torch.full((9,), math.inf)
    assert math.isinf(float(clip(own, 0.0)))
