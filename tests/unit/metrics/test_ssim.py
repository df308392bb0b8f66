import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.regression import SSIMMetric
from skimage.metrics import structural_similarity

from prod9.metrics import ssim as module
from prod9.metrics.ssim import C1, ssim, ssim_and_contrast


def _pair(shape, noise=0.2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(shape, generator=generator)
    return a, (a + noise * torch.randn(shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("shape", [(2, 1, 28, 28, 28), (1, 3, 11, 16, 20)])
@pytest.mark.parametrize("flat", [False, True])
def test_as_scikit_image(shape, flat):
    a, b = _pair(shape)
    if flat:  # large areas without variance, where fp32 goes wrong
        a, b = a * (a > 0.9), b * (b > 0.9) + 0.5
    expected = [
        structural_similarity(
            x.double().numpy(),
            y.double().numpy(),
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(a, b, strict=True)
    ]
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-9)


def test_as_monai_to_its_precision():
    a, b = _pair((2, 2, 20, 18, 16))
    expected = SSIMMetric(spatial_dims=3, reduction="none")(a, b).flatten()
    torch.testing.assert_close(ssim(a, b), expected.double(), rtol=0, atol=1e-5)
    small = SSIMMetric(spatial_dims=3, win_size=5, reduction="none")(a, b)
    torch.testing.assert_close(ssim(a, b, window=5), small.flatten().double(), rtol=0, atol=1e-5)


def test_constant_volumes_by_hand():
    # No variance: contrast 1, SSIM is the luminance term.
    a, b = torch.full((1, 1, 11, 11, 11), 0.2), torch.full((1, 1, 11, 11, 11), 0.6)
    similarity, contrast = ssim_and_contrast(a, b)
    assert contrast.item() == pytest.approx(1.0, abs=1e-9)
    assert similarity.item() == pytest.approx((2 * 0.12 + C1) / (0.04 + 0.36 + C1), rel=1e-6)


def test_one_window_of_one_voxel():
    # Window 1: no variance anywhere, contrast C2 / C2.
    a, b = torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)
    assert ssim(a, b, window=1).item() == pytest.approx(C1 / (1 + C1))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), noise=st.floats(0, 1))
def test_symmetric_bounded_and_one_for_itself(seed, noise):
    a, b = _pair((2, 1, 12, 12, 12), noise, seed)
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    assert (ssim(a, b).abs() <= 1).all()
    torch.testing.assert_close(ssim(a, a), torch.ones(2, dtype=torch.float64))


def test_more_noise_is_worse():
    values = [ssim(*_pair((1, 1, 16, 16, 16), noise)).item() for noise in (0.0, 0.1, 0.2, 0.4)]
    assert values == sorted(values, reverse=True)


def test_a_volume_smaller_than_the_window_is_refused():
    a, b = _pair((1, 1, 12, 10, 12))
    with pytest.raises(ValueError, match=r"window of 11 does not fit a volume of \[12, 10, 12\]"):
        ssim(a, b)


@pytest.fixture(params=[1, 17 * 14 * 3, 1 << 30], ids=["planes", "slabs", "whole"])
def slab_voxels(request, monkeypatch):
    monkeypatch.setattr(module, "SLAB_VOXELS", request.param)
    return request.param


def _full_map(x, y):
    """scikit-image's map of one volume (C, D, H, W), without the border of 5 voxels."""
    _, full = structural_similarity(
        x.double().numpy(),
        y.double().numpy(),
        data_range=1.0,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return full[:, 5:-5, 5:-5, 5:-5]


def test_slabs_change_nothing(slab_voxels, monkeypatch):
    a, b = _pair((2, 2, 25, 17, 14))
    in_slabs = ssim_and_contrast(a, b)
    monkeypatch.setattr(module, "SLAB_VOXELS", 1 << 30)
    for ours, whole in zip(in_slabs, ssim_and_contrast(a, b), strict=True):
        torch.testing.assert_close(ours, whole, rtol=0, atol=1e-12)


def test_a_mask_chooses_windows_by_their_centre(slab_voxels):
    a, b = _pair((2, 3, 25, 17, 14))
    b[:, :, :12] = a[:, :, :12]  # so that it matters which windows count
    mask = torch.rand((2, 1, 25, 17, 14), generator=torch.Generator().manual_seed(1)) < 0.3
    mask[0, :, :14] = False
    expected = [
        _full_map(x, y)[:, m[0, 5:-5, 5:-5, 5:-5].numpy()].mean()
        for x, y, m in zip(a, b, mask, strict=True)
    ]
    assert abs(expected[0] - expected[1]) > 0.05
    assert ssim(a, b, mask=mask).tolist() == pytest.approx(expected, abs=1e-9)
    everything = torch.ones_like(mask)
    torch.testing.assert_close(ssim(a, b, mask=everything), ssim(a, b), rtol=0, atol=1e-12)


def test_a_mask_of_one_voxel_is_one_window(slab_voxels):
    a, b = _pair((1, 1, 13, 16, 12))
    mask = torch.zeros(1, 1, 13, 16, 12, dtype=torch.bool)
    mask[0, 0, 6, 9, 5] = True
    window = (..., slice(1, 12), slice(4, 15), slice(0, 11))
    torch.testing.assert_close(ssim(a, b, mask=mask), ssim(a[window], b[window]))


def test_no_window_in_the_mask_is_no_number():
    a, b = _pair((2, 1, 12, 12, 12))
    mask = torch.zeros(2, 1, 12, 12, 12, dtype=torch.bool)
    mask[0, 0, :5] = True  # voxels, but no window's centre
    mask[1, 0, 5, 5, 5] = True
    first, second = ssim(a, b, mask=mask).tolist()
    assert math.isnan(first)
    assert -1 <= second <= 1


def test_what_lies_outside_the_mask_may_be_broken():
    a, b = _pair((1, 1, 30, 12, 12))
    b[0, 0, 25] = math.nan
    mask = torch.zeros(1, 1, 30, 12, 12, dtype=torch.bool)
    mask[0, 0, :19] = True
    torch.testing.assert_close(ssim(a, b, mask=mask), ssim(a[:, :, :24], b[:, :, :24]))


def test_masks_that_mean_nothing_are_refused():
    a, b = _pair((2, 2, 12, 12, 12))
    with pytest.raises(ValueError, match="a window of 4 has no centre voxel"):
        ssim(a, b, window=4, mask=torch.ones(2, 1, 12, 12, 12, dtype=torch.bool))
    for shape in ((1, 1, 12, 12, 12), (2, 2, 12, 12, 12), (2, 1, 12, 12, 11)):
        # TypeError where jaxtyping checks first.
        with pytest.raises((ValueError, TypeError)):
            ssim(a, b, mask=torch.ones(shape, dtype=torch.bool))


def test_the_gradient_passes_through_the_slabs(slab_voxels):
    a, b = _pair((1, 1, 13, 12, 11))
    a = a.double().requires_grad_()
    ssim(a, b.double()).backward()
    voxel, step = (0, 0, 6, 5, 5), 1e-5
    with torch.no_grad():
        up, down = a.clone(), a.clone()
        up[voxel] += step
        down[voxel] -= step
        slope = (ssim(up, b.double()) - ssim(down, b.double())).item() / (2 * step)
    assert a.grad[voxel].item() == pytest.approx(slope, rel=1e-5)
