import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prod9.losses.focal_frequency import FocalFrequencyLoss, focal_frequency_2d


def _volumes(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def _full_spectrum(difference: torch.Tensor) -> torch.Tensor:
    """The definition, all frequencies: alpha = 1, one patch."""
    distance = torch.fft.fft2(difference, norm="ortho").abs().square()
    weight = distance.sqrt()
    return (weight / weight.amax((-2, -1), keepdim=True) * distance).mean()


def test_a_constant_error_sits_in_one_frequency():
    # Orthonormal transform of a constant e over h x w: e sqrt(h w) at frequency 0, weight 1 there.
    # Mean over h w frequencies of e^2 h w.
    loss = focal_frequency_2d(torch.full((2, 3, 4, 6), 0.5), torch.zeros(2, 3, 4, 6))
    assert loss.item() == pytest.approx(0.25)


def test_two_frequencies_by_hand():
    # 1 + cos(2 pi x / 8): amplitudes 8, 4 and 4 over an 8 x 8 patch; weights 1, 1/2, 1/2.
    row = 1 + torch.cos(2 * math.pi * torch.arange(8) / 8)
    image = row.expand(1, 1, 8, 8)
    zero = torch.zeros(1, 1, 8, 8)
    assert focal_frequency_2d(image, zero).item() == pytest.approx((64 + 8 + 8) / 64, rel=1e-5)
    # alpha = 0 weighs all alike: Parseval, mean square of the image, 1 + 1/2.
    assert focal_frequency_2d(image, zero, alpha=0.0).item() == pytest.approx(1.5, rel=1e-5)
    squared = (64 + 4 + 4) / 64  # alpha = 2: weights 1, 1/4, 1/4
    assert focal_frequency_2d(image, zero, alpha=2.0).item() == pytest.approx(squared, rel=1e-5)
    log = (64 + 32 * math.log(5) / math.log(9)) / 64
    got = focal_frequency_2d(image, zero, log_matrix=True).item()
    assert got == pytest.approx(log, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(h=st.integers(1, 9), w=st.integers(1, 9), seed=st.integers(0, 99))
def test_half_a_spectrum_counts_as_the_whole_one(h, w, seed):
    a, b = _volumes(2, 2, h, w, seed=seed)
    torch.testing.assert_close(focal_frequency_2d(a, b), _full_spectrum(a - b))


@settings(max_examples=20, deadline=None)
@given(p=st.integers(1, 4), ph=st.integers(1, 4), pw=st.integers(1, 4), seed=st.integers(0, 99))
def test_unweighted_loss_is_the_mean_squared_error(p, ph, pw, seed):
    a, b = _volumes(2, 1, p * ph, p * pw, seed=seed)
    loss = focal_frequency_2d(a, b, alpha=0.0, patch_factor=p)
    torch.testing.assert_close(loss, (a - b).square().mean())


def test_patches_are_blocks_of_neighbouring_pixels():
    a, b = _volumes(2, 3, 6, 4)
    quadrants = [
        focal_frequency_2d(a[..., i, j], b[..., i, j])
        for i in (slice(0, 3), slice(3, 6))
        for j in (slice(0, 2), slice(2, 4))
    ]
    loss = focal_frequency_2d(a, b, patch_factor=2)
    torch.testing.assert_close(loss, torch.stack(quadrants).mean())


def test_equal_images_have_zero_loss_and_zero_gradient():
    a = torch.rand(1, 1, 4, 4, requires_grad=True)
    loss = focal_frequency_2d(a, a.detach().clone(), patch_factor=2)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(a.grad, torch.zeros_like(a))


def test_the_weights_carry_no_gradient():
    # With w fixed, loss = mean(w d) is quadratic in the error: its gradient times the error is 2 L.
    a, b = _volumes(1, 2, 6, 5)
    a.requires_grad_()
    loss = focal_frequency_2d(a, b)
    loss.backward()
    assert (a.grad * (a - b)).sum().item() == pytest.approx(2 * loss.item(), rel=1e-5)


def test_fp32_under_autocast_and_for_bf16_input():
    a, b = _volumes(1, 1, 8, 8, 8)
    module = FocalFrequencyLoss(ratio=1.0)
    a16, b16 = a.bfloat16(), b.bfloat16()
    expected = module(a16.float(), b16.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module(a16, b16)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("shape", [(1, 1, 6, 9), (1, 1, 9, 6)])
def test_a_side_that_does_not_divide_is_refused(shape):
    a, b = _volumes(*shape)
    with pytest.raises(ValueError, match=r"patch_factor 2 does not divide a slice of \d x \d"):
        focal_frequency_2d(a, b, patch_factor=2)


@pytest.mark.parametrize("switch", ["ave_spectrum", "batch_matrix"])
def test_in_validation_a_volume_is_a_batch_of_its_own(switch):
    a, b = _volumes(3, 1, 4, 5, 6)
    a = a * torch.tensor([0.2, 1.0, 3.0]).view(3, 1, 1, 1, 1)
    module = FocalFrequencyLoss(ratio=1.0, **{switch: True})
    alone = torch.stack([module(a[i : i + 1], b[i : i + 1]) for i in range(3)]).mean()
    assert abs(float(module(a, b) / alone) - 1) > 1e-3
    torch.testing.assert_close(module.eval()(a, b), alone)


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_slices_along_an_axis_are_images_across_it(axis):
    a, b = _volumes(2, 3, 4, 5, 6)
    loss = FocalFrequencyLoss(axes=(axis,), ratio=1.0)(a, b)
    by_slice = [
        focal_frequency_2d(a.select(axis, i), b.select(axis, i)) for i in range(a.shape[axis])
    ]
    torch.testing.assert_close(loss, torch.stack(by_slice).mean())


def test_average_over_the_axes():
    a, b = _volumes(1, 1, 4, 6, 8)
    each = [FocalFrequencyLoss(axes=(axis,), ratio=1.0)(a, b) for axis in (2, 3, 4)]
    torch.testing.assert_close(FocalFrequencyLoss(ratio=1.0)(a, b), torch.stack(each).mean())


def test_average_spectrum_averages_volumes_never_slices():
    # Errors that cancel over the batch vanish; errors that cancel over one volume's slices do not.
    ramp = torch.linspace(-1, 1, 6).view(1, 1, 6, 1, 1).expand(1, 1, 6, 4, 4)
    module = FocalFrequencyLoss(axes=(2,), ratio=1.0, ave_spectrum=True)
    over_batch = torch.cat([ramp, -ramp])
    assert module(over_batch, torch.zeros_like(over_batch)).item() == pytest.approx(0, abs=1e-12)
    assert module(ramp, torch.zeros_like(ramp)).item() == pytest.approx(
        torch.linspace(-1, 1, 6).square().mean().item()
    )


def test_evaluation_slices_are_even_and_fixed():
    module = FocalFrequencyLoss(ratio=0.5).eval()
    assert module.slice_indices(8).tolist() == [1, 3, 5, 7]
    assert FocalFrequencyLoss(ratio=0.25).eval().slice_indices(8).tolist() == [2, 6]
    assert FocalFrequencyLoss(ratio=0.01).eval().slice_indices(28).tolist() == [14]
    a, b = _volumes(1, 1, 8, 8, 8)
    assert torch.equal(module(a, b), module(a, b))


@given(size=st.integers(1, 64), ratio=st.floats(0.01, 1.0), training=st.booleans())
def test_slices_are_distinct_in_range_and_as_many_as_asked(size, ratio, training):
    indices = FocalFrequencyLoss(ratio=ratio).train(training).slice_indices(size).tolist()
    assert len(indices) == max(1, round(ratio * size))
    assert sorted(set(indices)) == indices
    assert indices[0] >= 0
    assert indices[-1] < size


def test_training_slices_are_drawn_by_the_generator():
    module = FocalFrequencyLoss(ratio=0.5)
    a, b = _volumes(1, 1, 12, 12, 12)

    def draw(seed: int) -> torch.Tensor:
        return module(a, b, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert len({draw(seed).item() for seed in range(8)}) > 1
    # Every slice has its turn.
    generator = torch.Generator().manual_seed(0)
    seen = torch.cat([module.slice_indices(12, generator) for _ in range(20)])
    assert set(seen.tolist()) == set(range(12))
