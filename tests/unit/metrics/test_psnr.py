import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio

from prod9.metrics import psnr as module
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


@pytest.mark.parametrize("slab_voxels", [1, 300, 1 << 30])
def test_a_mask_chooses_voxels(slab_voxels, monkeypatch):
    monkeypatch.setattr(module, "SLAB_VOXELS", slab_voxels)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 2, 3, 11, 6, 7, generator=generator)
    mask = torch.rand(2, 1, 11, 6, 7, generator=generator) < 0.3
    b = torch.where(mask, b, math.nan)  # what is not in the mask does not matter at all
    expected = [
        peak_signal_noise_ratio(
            y[:, m[0]].double().numpy(), x[:, m[0]].double().numpy(), data_range=1
        )
        for x, y, m in zip(a, b, mask, strict=True)
    ]
    assert psnr(a, b, mask=mask).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("slab_voxels", [1, 300])
def test_slabs_change_nothing(slab_voxels, monkeypatch):
    a, b = torch.rand(2, 2, 3, 11, 6, 7, generator=torch.Generator().manual_seed(0))
    whole = psnr(a, b)
    monkeypatch.setattr(module, "SLAB_VOXELS", slab_voxels)
    torch.testing.assert_close(psnr(a, b), whole, rtol=1e-13, atol=0)


def test_an_empty_mask_is_no_number():
    a, b = torch.rand(2, 2, 1, 4, 4, 4)
    mask = torch.zeros(2, 1, 4, 4, 4, dtype=torch.bool)
    mask[1, 0, 1, 2, 3] = True
    first, second = psnr(a, b, mask=mask).tolist()
    assert math.isnan(first)
    error = float(a[1, 0, 1, 2, 3].double() - b[1, 0, 1, 2, 3].double())
    assert second == pytest.approx(-20 * math.log10(abs(error)))


def test_a_mask_of_another_shape_is_refused():
    a, b = torch.rand(2, 2, 2, 4, 4, 4)
    for shape in ((1, 1, 4, 4, 4), (2, 2, 4, 4, 4), (2, 1, 4, 4, 3)):
        # TypeError where jaxtyping checks first.
        with pytest.raises((ValueError, TypeError)):
            psnr(a, b, mask=torch.ones(shape, dtype=torch.bool))
