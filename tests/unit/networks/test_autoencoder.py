from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prod9.networks.autoencoder import Autoencoder
from prod9.networks.blocks import AttentionBlock, Downsample, ResidualBlock, Upsample
from prod9.networks.cpu_kernels.norm import group_count


def build(seed: int = 0, **change: Any) -> Autoencoder:
    sizes: dict[str, Any] = {
        "in_channels": 1,
        "levels": (5, 4, 3),
        "num_channels": (8, 8),
        "attention_levels": None,
        "num_res_blocks": 1,
        "norm_num_groups": 4,
        "stem_stride": 1,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Autoencoder(**(sizes | change))


def volume(*sides: int, channels: int = 1, batch: int = 1) -> Tensor:
    return torch.rand(batch, channels, *sides, generator=torch.Generator().manual_seed(0))


SMALL = build(num_channels=(8, 8, 8), stem_stride=2)


@given(sides=st.tuples(*[st.integers(1, 20)] * 3))
def test_any_size_comes_back(sides):
    x = volume(*sides)
    output = SMALL(x)
    assert output.volume.shape == x.shape
    assert output.codes.shape[2:] == SMALL.grid(sides) == tuple(-(-s // 8) for s in sides)


@pytest.mark.parametrize(
    ("num_channels", "stem_stride", "stride"),
    [((8,), 1, 1), ((8,), 2, 2), ((8, 8), 1, 2), ((4, 4, 8, 8), 1, 8), ((4, 8, 8), 2, 8)],
)
def test_stride(num_channels: Any, stem_stride: int, stride: int) -> None:
    model = build(num_channels=num_channels, stem_stride=stem_stride)
    assert model.stride == stride
    assert model.encode(volume(16, 8, 24)).shape == (1, 3, 16 // stride, 8 // stride, 24 // stride)
    assert model.grid((28, 28, 28)) == (-(-28 // stride),) * 3
    assert model(volume(28, 27, 9)).volume.shape == (1, 1, 28, 27, 9)


def test_padding_repeats_the_border_and_is_cut_off_again() -> None:
    # 28 at stride 8: two voxels before and after. 27: two before, three after.
    x = volume(28, 27, 32)
    pads = (0, 0, 2, 3, 2, 2)
    padded = F.pad(x, pads, mode="replicate")
    assert padded.shape[2:] == (32, 32, 32)
    assert torch.equal(padded[0, 0, 0, 5], padded[0, 0, 2, 5])
    assert torch.equal(SMALL.encode(x), SMALL.encode(padded))
    whole, cut = SMALL(padded).volume, SMALL(x).volume
    assert torch.equal(cut, whole[:, :, 2:30, 2:29, :])


def test_a_step_at_the_border_is_not_seen_by_padding_with_zeros() -> None:
    ones = torch.ones(1, 1, 7, 8, 8)
    assert torch.equal(SMALL.encode(ones), SMALL.encode(torch.ones(1, 1, 8, 8, 8)))


def test_decode_without_sides_is_the_grid_times_the_stride() -> None:
    codes = SMALL(volume(9, 8, 17)).codes
    assert SMALL.decode(codes).shape == (1, 1, 16, 8, 24)


def test_the_parts_are_encode_quantize_decode() -> None:
    x = volume(9, 8, 17)
    codes = SMALL.fsq.quantize(SMALL.encode(x))
    output = SMALL(x)
    assert torch.equal(output.codes, codes)
    assert torch.equal(output.volume, SMALL.decode(codes, (9, 8, 17)))
    # Already quantised: every code is the code of a token.
    again = SMALL.fsq.indices_to_codes(SMALL.fsq.codes_to_indices(codes))
    torch.testing.assert_close(again, codes, rtol=0, atol=1e-6)


def test_the_gradient_passes_through_the_quantiser() -> None:
    model = build()
    for parameter in model.parameters():
        if not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.1)
    x = volume(8, 8, 8, batch=2)
    F.l1_loss(model(x).volume, x).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_the_last_layer_makes_the_volume(stem_stride: int) -> None:
    model = build(stem_stride=stem_stride, in_channels=2)
    assert any(p is model.last_layer for p in model.parameters())
    x = volume(8, 8, 8, channels=2)
    inner: list[Tensor] = []
    model.last.register_forward_pre_hook(lambda module, args: inner.append(args[0]))
    model(x)
    with torch.no_grad():
        model.last_layer.zero_()
    flat = model(x).volume
    # Nothing but its bias is left: each channel has at most stem_stride^3 values.
    for channel in range(2):
        assert len(flat[0, channel].unique()) <= stem_stride**3
    assert inner[0].abs().sum() > 0


def test_it_follows_the_module_into_a_copy() -> None:
    # A copied or re-cast network must not keep the old network's tensor.
    import copy

    model = copy.deepcopy(build())
    assert any(p is model.last_layer for p in model.parameters())
    model = build().double()
    assert any(p is model.last_layer for p in model.parameters())


def test_channels_last() -> None:
    model = build(num_channels=(8, 16))
    conv = model.encoder[0]
    assert isinstance(conv, torch.nn.Conv3d)
    assert model.last_layer.is_contiguous(memory_format=torch.channels_last_3d)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv3d) and module.in_channels > 1:
            assert module.weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_attention_levels() -> None:
    plain, attentive = build(), build(attention_levels=(False, True))
    count = sum(isinstance(module, AttentionBlock) for module in attentive.modules())
    assert count == 2  # encoder and decoder
    assert not any(isinstance(module, AttentionBlock) for module in plain.modules())
    both = build(attention_levels=(True, True))
    assert sum(isinstance(module, AttentionBlock) for module in both.modules()) == 4

    # Far cells meet only through attention.
    x = volume(32, 4, 4)
    changed = x.clone()
    changed[..., 0, 0, 0] += 1

    def far(model: Autoencoder) -> Tensor:
        for module in model.modules():
            if isinstance(module, AttentionBlock):
                torch.nn.init.normal_(module.out.weight, std=0.5)
            if isinstance(module, torch.nn.GroupNorm):  # norms see everything: take them out
                module.forward = lambda y: y
        return (model.encode(changed) - model.encode(x))[0, :, -1].abs().max()

    assert far(build()) == 0
    assert far(build(attention_levels=(False, True))) > 0


def test_number_of_residual_blocks() -> None:
    def blocks(model: Autoencoder) -> int:
        return sum(isinstance(module, ResidualBlock) for module in model.modules())

    assert blocks(build(num_res_blocks=1)) == 4
    assert blocks(build(num_res_blocks=3, num_channels=(8, 8, 8))) == 18


# --- blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "groups", "expected"), [(8, 8, 4), (12, 8, 6), (7, 8, 1), (10, 4, 2), (8, 1, 1)]
)
def test_groups_are_a_divisor_of_the_channels(channels: int, groups: int, expected: int) -> None:
    assert group_count(channels, groups) == expected


def test_residual_and_attention_blocks_start_without_effect() -> None:
    x = volume(3, 4, 5, channels=8)
    residual = ResidualBlock(8, 8, 4)
    torch.testing.assert_close(residual(x), x)
    attention = AttentionBlock(8, 4)
    torch.testing.assert_close(attention(x), x)
    assert ResidualBlock(8, 12, 4)(x).shape == (1, 12, 3, 4, 5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_attention_keeps_no_weight_per_pair_of_cells(layout: torch.memory_format) -> None:
    sizes: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.untyped_storage().nbytes() // 4)
        return tensor

    attention, cells = AttentionBlock(8, 4), 6**3
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        attention(volume(6, 6, 6, channels=8).to(memory_format=layout))
    assert 0 < max(sizes) <= 3 * 8 * cells < cells**2  # queries, keys and values are the largest


def test_upsampling_places_sub_voxels() -> None:
    up = Upsample(8, 3)
    with torch.no_grad():
        up.conv.weight.zero_()
        up.conv.bias.copy_(torch.arange(24.0))
    y = up(volume(2, 3, 4, channels=8))
    assert y.shape == (1, 3, 4, 6, 8)
    for channel in range(3):
        for i, j, k in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1)]:
            expected = 8 * channel + 4 * i + 2 * j + k
            assert bool((y[0, channel, i::2, j::2, k::2] == expected).all())


def test_upsampling_starts_without_a_checkerboard() -> None:
    up = Upsample(8, 3)
    up.conv.bias.data.zero_()
    y = up(volume(2, 3, 4, channels=8))
    torch.testing.assert_close(
        y, F.interpolate(y[..., ::2, ::2, ::2], scale_factor=2, mode="nearest")
    )
    assert Downsample(3, 5)(y).shape == (1, 5, 2, 3, 4)
