import pytest
import torch
from monai.metrics.regression import MultiScaleSSIMMetric

from prod9.metrics.ssim import SCALE_WEIGHTS, ms_ssim, ms_ssim_matrix, num_scales, ssim


def _pair(shape, noise=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(shape, generator=generator)
    return a, (a + noise * torch.randn(shape, generator=generator)).clamp(0, 1)


def _weights(scales: int) -> tuple[float, ...]:
    return tuple(w / sum(SCALE_WEIGHTS[:scales]) for w in SCALE_WEIGHTS[:scales])


@pytest.mark.parametrize(
    ("side", "scales"), [(28, 3), (64, 4), (32, 3), (80, 5), (240, 5), (9, 1), (5, 1), (4, 0)]
)
def test_number_of_scales(side, scales):
    assert num_scales(side) == scales
    if 0 < scales < 5:
        assert side // 2 ** (scales - 1) >= 5 > side // 2**scales


@pytest.mark.parametrize(("shape", "scales"), [((2, 1, 28, 28, 28), 3), ((1, 2, 64, 45, 50), 4)])
def test_as_monai(shape, scales):
    a, b = _pair(shape)
    assert num_scales(min(shape[2:])) == scales
    ours = ms_ssim(a, b)
    monai = MultiScaleSSIMMetric(
        spatial_dims=3, kernel_size=5, weights=_weights(scales), reduction="none"
    )(a, b)
    torch.testing.assert_close(ours, monai.flatten().double(), rtol=0, atol=1e-5)


def test_one_scale_is_plain_ssim():
    a, b = _pair((2, 1, 8, 8, 8))
    torch.testing.assert_close(ms_ssim(a, b), ssim(a, b, window=5))


def test_one_for_itself_and_symmetric():
    a, b = _pair((2, 1, 28, 28, 28))
    torch.testing.assert_close(ms_ssim(a, a), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(ms_ssim(a, b), ms_ssim(b, a))


def test_a_negative_image_is_zero_not_nan():
    a, _ = _pair((1, 1, 28, 28, 28))
    assert ms_ssim(a, 1 - a).item() == 0.0


def test_coarse_structure_counts_more_than_in_ssim():
    # Fine noise spoils the finest scale, which weighs least.
    axis = torch.linspace(0, 3.14, 28)
    smooth = (axis.sin()[:, None, None] * axis.sin()[:, None] * axis.sin()).view(1, 1, 28, 28, 28)
    noisy = smooth + 0.1 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(0))
    assert ms_ssim(smooth, noisy) > ssim(smooth, noisy, window=5) + 0.1


def test_a_volume_smaller_than_the_window_is_refused():
    a, b = _pair((1, 1, 4, 8, 8))
    with pytest.raises(ValueError, match="does not fit"):
        ms_ssim(a, b)


@pytest.mark.parametrize("shape", [(5, 1, 28, 30, 28), (3, 1, 5, 5, 6)])
def test_the_matrix_holds_every_pair(shape):
    volumes, _ = _pair(shape)
    volumes = (volumes + torch.linspace(0, 1, len(volumes))[:, None, None, None, None]) / 2
    scores = ms_ssim_matrix(volumes)
    assert scores.shape == (len(volumes),) * 2
    assert scores.diagonal().isnan().all()
    for i in range(len(volumes)):
        others = [j for j in range(len(volumes)) if j != i]
        expected = ms_ssim(volumes[[i] * len(others)], volumes[others])
        torch.testing.assert_close(scores[i, others], expected)
