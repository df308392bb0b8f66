import pytest
import torch
from torch import Tensor, nn
from torch.profiler import profile

from prod9.networks.autoencoder import Autoencoder
from prod9.networks.blocks import LocalBlock
from prod9.networks.cpu_kernels import library
from prod9.networks.cpu_kernels.conv import SLOW_BELOW, SMALL_GRID, Conv3d


@pytest.fixture(params=[True, False], ids=["exchanged", "plain"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Compute the weight's gradient both ways, whichever is the faster one here."""
    found = {"output": False, "weight": False, "convolution": request.param}
    monkeypatch.setattr(library, "choice", lambda: found)
    return request.param


def everything(layer: nn.Conv3d, x: Tensor, gradient: Tensor) -> list[Tensor]:
    output = layer(x)
    wanted = [x, *layer.parameters()]
    return [output, *torch.autograd.grad(output, wanted, gradient)]


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("kernel", "bias"), [(3, True), (5, False), (1, True)])
@pytest.mark.parametrize("sides", [(8, 6, 7), (7, 6, 8), (2, 3, 3), (3, 2, 2), (1, 4, 4)])
def test_one_volume_equals_nn_conv3d(
    sides: tuple[int, ...], kernel: int, bias: bool, channels_last: bool
) -> None:
    torch.manual_seed(0)
    ours = Conv3d(6, 10, kernel, bias=bias)
    plain = nn.Conv3d(6, 10, kernel, padding=kernel // 2, bias=bias)
    plain.load_state_dict(ours.state_dict())
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    x = torch.randn(1, 6, *sides).contiguous(memory_format=layout).requires_grad_()
    gradient = torch.randn(1, 10, *sides)
    for found, expected in zip(
        everything(ours, x, gradient), everything(plain, x, gradient), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def ways(*work: tuple[nn.Module, Tensor]) -> set[str]:
    """Names of the convolutions that PyTorch chose, forward and backward."""
    with profile() as profiled:
        for module, x in work:
            y = module(x)
            (y if isinstance(y, Tensor) else y.volume).sum().backward()
    return {event.key for event in profiled.key_averages() if "conv3d_forward" in event.key}


def test_one_volume_never_takes_the_slow_way() -> None:
    network = Autoencoder(
        in_channels=1,
        levels=(8, 8, 8),
        num_channels=(8, 16, 16),
        attention_levels=None,
        num_res_blocks=1,
        norm_num_groups=4,
        stem_stride=1,
    )
    network.encoder[-1] = nn.Identity()  # 1 x 1 x 1: cheap either way
    network.decoder[0] = nn.Identity()
    volume = torch.rand(1, 1, 24, 24, 24)
    latent = network.encoder(volume)
    work = [
        (network.encoder, volume),
        (network.decoder, latent.detach()),
        (LocalBlock(8), torch.rand(1, 4, 4, 4, 8)),
    ]
    assert ways(*work) == set()
    # The way that is avoided is there: without this the test would say nothing.
    plain = nn.Conv3d(16, 16, 3, padding=1)
    assert ways((plain, torch.rand(1, 16, 8, 8, 8))) == {"aten::slow_conv3d_forward"}


def test_the_bound_is_pytorchs_own() -> None:
    # C * D * H of the largest input of one volume for which PyTorch leaves oneDNN.
    layer = nn.Conv3d(4, 4, 3, padding=1)
    depth = SLOW_BELOW // (4 * 64)
    assert depth * 4 * 64 == SLOW_BELOW
    assert ways((layer, torch.rand(1, 4, depth, 64, 2))) == {"aten::slow_conv3d_forward"}
    assert ways((layer, torch.rand(1, 4, depth + 1, 64, 2))) == set()


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("kernel", "bias"), [(3, True), (5, False), (1, True)])
@pytest.mark.parametrize(("batch", "sides"), [(3, (5, 6, 7)), (8, (7, 7, 7)), (2, (1, 2, 3))])
def test_a_batch_equals_nn_conv3d(
    batch: int, sides: tuple[int, ...], kernel: int, bias: bool, channels_last: bool, way: bool
) -> None:
    torch.manual_seed(0)
    ours = Conv3d(6, 10, kernel, bias=bias)
    plain = nn.Conv3d(6, 10, kernel, padding=kernel // 2, bias=bias)
    plain.load_state_dict(ours.state_dict())
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    x = torch.randn(batch, 6, *sides).contiguous(memory_format=layout).requires_grad_()
    gradient = torch.randn(batch, 10, *sides)
    # The way that is tested.
    assert ("_Convolution" in type(ours(x).grad_fn).__name__) == way
    found, expected = everything(ours, x, gradient), everything(plain, x, gradient)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    if channels_last and kernel > 1:  # what follows in the backward pass has one layout
        assert found[1].is_contiguous(memory_format=layout)


def test_large_grids_and_frozen_weights_are_computed_as_pytorch_does() -> None:
    side = round(SMALL_GRID ** (1 / 3)) + 1
    layer, x = Conv3d(2, 3, 3), torch.randn(2, 2, 4, 4, 4, requires_grad=True)
    large = torch.randn(2, 2, side, side, side)
    assert "_Convolution" not in type(layer(large).grad_fn).__name__
    frozen = Conv3d(2, 3, 3).requires_grad_(False)
    assert "_Convolution" not in type(frozen(x).grad_fn).__name__
