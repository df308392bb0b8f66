import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.networks.discriminator import MultiScaleDiscriminator, PatchDiscriminator


def volumes(side: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, 1, side, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("num_layers", "side"),
    # 32 -> 16 (first) -> halved by all but the last of num_layers.
    [(1, 16), (2, 8), (3, 4)],
)
def test_map_sides(num_layers: int, side: int) -> None:
    torch.manual_seed(0)
    assert PatchDiscriminator(1, 4, num_layers)(volumes(32)).shape == (2, 1, side, side, side)


def test_widths_double_up_to_eight_times() -> None:
    layers = PatchDiscriminator(2, 4, 5)
    widths = [m.out_channels for m in layers if isinstance(m, nn.Conv3d)]
    assert widths == [4, 8, 16, 32, 32, 32, 1]
    assert layers[0].in_channels == 2


def test_one_map_per_scale_each_from_the_volume_at_half_the_size() -> None:
    torch.manual_seed(0)
    model = MultiScaleDiscriminator(1, 4, num_layers_d=1, num_d=3)
    x = volumes(32)
    maps = model(x)
    assert [m.shape[-1] for m in maps] == [16, 8, 4]
    assert torch.equal(maps[0], model.scales[0](x))
    assert torch.equal(maps[1], model.scales[1](F.avg_pool3d(x, 2)))
    assert torch.equal(maps[2], model.scales[2](F.avg_pool3d(x, 4)))


def test_a_verdict_is_local() -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(1, 4, 2)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):  # norms see everything: take them out
            module.forward = lambda y: y
    x = volumes(32, 1).requires_grad_()
    model(x)[0, 0, 4, 4, 4].backward()
    seen = x.grad[0, 0].abs().amax((1, 2)).nonzero()[:, 0]
    # conv 4/2, conv 3/2, conv 3/1, conv 3/1: a receptive field of 4 + 2 * 2 + 4 * 2 + 4 * 2 voxels.
    assert int(seen.max() - seen.min()) + 1 == 24
    assert int(seen.min()) <= 16 <= int(seen.max())


def test_a_verdict_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    model = MultiScaleDiscriminator(1, 8, 2, 2)
    x = volumes(16, 3)
    for together, alone in zip(model(x), model(x[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)
