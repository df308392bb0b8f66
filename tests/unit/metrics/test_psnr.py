import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio

from prod9.metrics.psnr import psnr


def test_a_known_error_per_volume():
    target = torch.full((3, 1, 4, 4, 4), 0.5)
    prediction = target + torch.tensor([0.1, 0.01, 0.5]).view(3, 1, 1, 1, 1)
    assert psnr(prediction, target).tolist() == pytest.approx(
        [20.0, 40.0, -20 * math.log10(0.5)], rel=1e-5
    )


def test_identical_volumes_are_infinitely_good():
    x = torch.rand(2, 1, 4, 4, 4)
    assert psnr(x, x).tolist() == [math.inf, math.inf]


@given(seed=st.integers(0, 999), channels=st.integers(1, 3))
def test_as_scikit_image(seed, channels):
    a, b = torch.rand(2, 2, channels, 5, 6, 7, generator=torch.Generator().manual_seed(seed))
    expected = [
        peak_signal_noise_ratio(y.double().numpy(), x.double().numpy(), data_range=1)
        for x, y in zip(a, b, strict=True)
    ]
    assert psnr(a, b).tolist() == pytest.approx(expected, rel=1e-9)


def test_unequal_shapes_are_refused():
    # TypeError where jaxtyping checks first.
    with pytest.raises((ValueError, TypeError)):
        psnr(torch.rand(1, 1, 4, 4, 4), torch.rand(2, 1, 4, 4, 4))
