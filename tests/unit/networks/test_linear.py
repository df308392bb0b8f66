import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.networks.cpu_kernels import library
from prod9.networks.cpu_kernels.linear import Linear
from prod9.networks.transformer import MaskedTransformer


@pytest.fixture(params=[True, False], ids=["weight by oneDNN", "weight by MKL"], autouse=True)
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN multiplies, whichever library is the faster one here."""
    found = {"output": True, "weight": request.param, "convolution": False}
    monkeypatch.setattr(library, "choice", lambda: found)


def everything(layer: Linear, x: Tensor, gradient: Tensor, *, plain: bool = False) -> list[Tensor]:
    output = F.linear(x, layer.weight, layer.bias) if plain else layer(x)
    wanted = [x, layer.weight] + ([] if layer.bias is None else [layer.bias])
    return [output, *torch.autograd.grad(output, wanted, gradient)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40,), (2, 24), (3, 4, 5)])
def test_equal_to_nn_linear(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(96, 130, bias=bias)
    x = torch.randn(*shape, 96, requires_grad=True)
    gradient = torch.randn(*shape, 130)
    fast = everything(layer, x, gradient)
    assert "OneDNN" in type(layer(x).grad_fn).__name__  # the way that is tested
    plain = everything(layer, x, gradient, plain=True)
    exact = everything(layer.double(), x.double().detach().requires_grad_(), gradient.double())
    for ours, theirs, truth in zip(fast, plain, exact, strict=True):
        error = float((ours.double() - truth).abs().max().detach())
        assert ours.shape == theirs.shape
        # As near to the exact product as PyTorch's own.
        assert error <= 2 * float((theirs.double() - truth).abs().max().detach()) + 1e-6


def test_gradients_that_are_views_of_other_layouts() -> None:
    layer = Linear(32, 48)
    x = torch.randn(32, 20).t().requires_grad_()
    gradient = torch.randn(48, 20).t()
    fast = everything(layer, x, gradient)
    plain = everything(layer, x, gradient, plain=True)
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_gives_way_where_it_does_not_apply() -> None:
    layer = Linear(16, 16)
    few, many = torch.randn(15, 16), torch.randn(16, 16)

    def way(x: Tensor) -> bool:
        return "OneDNN" in type(layer(x).grad_fn).__name__

    assert way(many)
    assert not way(few)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not way(many)
    layer.double()
    assert not way(many.double())


def test_same_initial_values_as_nn_linear() -> None:
    torch.manual_seed(3)
    ours = Linear(8, 4).state_dict()
    torch.manual_seed(3)
    theirs = nn.Linear(8, 4).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_transformer_takes_it_everywhere() -> None:
    transformer = MaskedTransformer(
        levels=(4, 4),
        num_classes=2,
        num_channels=1,
        grid=(4, 4, 4),
        hidden_dim=32,
        num_blocks=2,
        num_heads=2,
        patch_size=2,
        mlp_ratio=2.0,
        dropout=0.0,
        token_dim=8,
        local_blocks=1,
        head="full",
    )
    plain = [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and not isinstance(module, Linear)
    ]
    assert plain == []
