"""A rehearsal counts what a step holds and does: hand results, and steps that were really taken."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from prod9.planning.recorder import Rehearsal

MIB = 2**20


def test_storages_are_counted_once_and_let_go() -> None:
    with FakeTensorMode(), Rehearsal() as watch:
        x = torch.empty(MIB, dtype=torch.float32)  # 4 MiB
        view = x.view(1024, 1024)
        assert watch.held == 4 * MIB
        y = view + 1
        assert watch.held == 8 * MIB
        del x  # its view holds the storage
        assert watch.held == 8 * MIB
        del view
        assert watch.held == 4 * MIB
        del y
        assert watch.held == 0
    assert watch.peak == 8 * MIB


def test_what_autograd_keeps_is_held() -> None:
    with FakeTensorMode(), Rehearsal() as watch:
        x = torch.empty(MIB, requires_grad=True)  # 4 MiB
        y = x.sin()  # keeps x
        z = y.exp()  # keeps its result
        del y  # nobody keeps y
        assert watch.held == 8 * MIB
        loss = z.sum()
        del z
        assert watch.held == 8 * MIB + 4  # the graph keeps z, and there is the sum
        loss.backward()
        assert x.grad is not None
    assert watch.held == 8 * MIB + 4  # x, its gradient, the sum


def test_arithmetic_is_told_apart_by_network_and_direction() -> None:
    with FakeTensorMode(), Rehearsal() as watch:
        first, second = nn.Conv3d(3, 5, 3, bias=False), nn.Linear(7, 11, bias=False)
        watch.name_networks({"linear": second, "conv": first})  # products belong to the first
        x = torch.empty(2, 3, 6, 6, 6)
        watch.begin()
        first(x).sum().backward()
        second(torch.empty(13, 7)).sum().backward()
    # 4^3 places, 27 taps, 3 x 5 channels, 2 volumes, a multiply-add is 2. No input has a gradient.
    conv, linear = 2 * 2 * 64 * 27 * 15, 2 * 13 * 7 * 11
    assert watch.flops() == {"conv": (conv, conv), "linear": (linear, linear)}


def test_attention_is_counted_as_its_products() -> None:
    with FakeTensorMode(), Rehearsal() as watch:
        watch.name_networks({"only": nn.Linear(1, 1)})
        watch.begin()
        q = torch.empty(2, 4, 100, 16, requires_grad=True)
        nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    product = 2 * 2 * 4 * 100 * 100 * 16
    assert watch.flops()["only"] == (2 * product, 5 * product)


@pytest.mark.parametrize("kept", [0.25, 1.0])
def test_a_selection_keeps_its_share(kept: float) -> None:
    with FakeTensorMode(), Rehearsal(kept):
        x = torch.empty(4, 100, 8, requires_grad=True)
        mask = torch.empty(4, 100, dtype=torch.bool)
        rows = x[mask]
        assert rows.shape == (400 * kept, 8)
        rows.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape


def test_numbers_are_finite() -> None:
    with FakeTensorMode(), Rehearsal():
        assert torch.isfinite(torch.empty(3)).all()
        assert torch.isfinite(torch.empty(3)).tolist() == [True] * 3
