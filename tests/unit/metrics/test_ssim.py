import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.regression import SSIMMetric
from skimage.metrics import structural_similarity

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
    small = SSIMMetric(spatial_dims=3, win_size=5, kernel_sigma=0.8, reduction="none")(a, b)
    torch.testing.assert_close(
        ssim(a, b, window=5, sigma=0.8), small.flatten().double(), rtol=0, atol=1e-5
    )


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
