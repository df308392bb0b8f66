"""Intensities, of the whole volume or its foreground; large volumes, slab by slab."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from stored_files import values

from prod9.data.intensity import IntensityScale
from prod9.data.volume_files import stored_volume
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.data.volume_files.write import cast_to


def raw_of(array: np.ndarray) -> StoredVolume:
    return StoredVolume(array.astype(np.float32), np.eye(4), array.dtype, Path("case.npy"))


def test_uint8_is_divided_by_255() -> None:
    array = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    raw = raw_of(array)
    scale = IntensityScale.of(raw)
    assert np.array_equal(scale.apply(raw.array), array.astype(np.float32) / 255)
    assert np.array_equal(cast_to(scale.invert(scale.apply(raw.array)), raw.dtype), array)


def test_other_types_use_their_range_and_come_back() -> None:
    raw = raw_of(values((6, 7, 8)))
    scale = IntensityScale.of(raw)
    assert (scale.low, scale.high) == (-100, 335 * 7 - 100)
    scaled = scale.apply(raw.array)
    assert (scaled.min(), scaled.max()) == (0, 1)
    assert np.array_equal(cast_to(scale.invert(scaled), raw.dtype), values((6, 7, 8)))


def test_percentiles_clip_outliers() -> None:
    array = np.arange(1, 1002, dtype=np.int16).reshape(7, 11, 13)
    array.flat[-1] = 30_000
    scale = IntensityScale.of(raw_of(array), percentiles=(1.0, 99.0))
    assert (scale.low, scale.high) == pytest.approx((11, 991))
    assert scale.apply(array).max() == 1
    assert scale.apply(np.array([501.0])) == pytest.approx(0.5)


@pytest.mark.parametrize("constant", [0.0, -3.5, 7e8])
def test_a_constant_volume_comes_back(constant: float) -> None:
    raw = raw_of(np.full((2, 3, 4), constant, np.float32))
    scale = IntensityScale.of(raw)
    scaled = scale.apply(raw.array)
    assert np.array_equal(scaled, np.zeros((2, 3, 4)))
    assert np.array_equal(scale.invert(scaled + 0.3), raw.array)


def test_the_whole_float32_range_does_not_overflow() -> None:
    raw = raw_of(np.array([[[-3e38, 0, 3e38]]], np.float32))
    scale = IntensityScale.of(raw)
    assert scale.apply(raw.array).ravel().tolist() == [0, 0.5, 1]
    assert np.allclose(scale.invert(scale.apply(raw.array)), raw.array)


def ct() -> np.ndarray:
    """Return 600 zeros, then -400 to 599 without 0: what is not there lies within the range."""
    foreground = np.arange(-400, 600, dtype=np.float32)
    return np.concatenate([np.zeros(599, np.float32), foreground]).reshape(13, 3, 41)


@pytest.fixture(params=[1 << 22, 7])
def slab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(stored_volume, "_SLAB", request.param)
    return request.param


def test_percentiles_are_of_the_foreground(slab: int) -> None:
    array = ct()
    scale = IntensityScale.of(raw_of(array), percentiles=(1.0, 99.0))
    foreground = array[array != 0]
    assert foreground.size == 999
    # By hand: the 999 values from -400 on, 0 left out; positions 9.98 and 988.02.
    assert (scale.low, scale.high) == pytest.approx((-390.02, 589.02))
    assert (scale.low, scale.high) == pytest.approx(tuple(np.percentile(foreground, (1.0, 99.0))))
    assert scale.background == 0.0
    scaled = scale.apply(array)
    assert scaled.dtype == np.float32
    expected = ((array - -390.02) / (589.02 + 390.02)).clip(0, 1)
    expected[array == 0] = 0
    assert np.allclose(scaled, expected, atol=1e-6)
    assert (scaled[array == 0] == 0).all()


def test_the_array_is_left_as_it_was() -> None:
    array = ct()
    raw = raw_of(array)
    before = raw.array.copy()
    IntensityScale.of(raw, (0.1, 99.9)).apply(raw.array)
    assert np.array_equal(raw.array, before)


def test_the_background_comes_back(slab: int) -> None:
    array = ct()
    scale = IntensityScale.of(raw_of(array), percentiles=(0.0, 100.0))
    scaled = scale.apply(array)
    assert np.allclose(scale.invert(scaled, array != 0), array, atol=1e-4)
    # Without a mask, the darkest voxel of the foreground cannot be told from the background.
    unmasked = scale.invert(scaled)
    assert unmasked[array == -400].tolist() == [0]
    assert np.allclose(unmasked[array != -400], array[array != -400], atol=1e-4)


def test_a_mask_overrules_what_a_network_drew(slab: int) -> None:
    scale = IntensityScale(-400.0, 600.0, 0.0)
    drawn = np.full((4, 3, 3), 0.25, np.float32)
    inside = np.zeros((4, 3, 3), bool)
    inside[1:3] = True
    result = scale.invert(drawn, inside)
    assert np.array_equal(result, np.where(inside, -150, 0))
    assert np.array_equal(scale.invert(drawn), np.full((4, 3, 3), -150))


def test_a_scale_without_background_ignores_the_mask() -> None:
    scale = IntensityScale(-400.0, 600.0)
    drawn = np.array([[[0.0, 0.25]]], np.float32)
    assert scale.invert(drawn).tolist() == [[[-400, -150]]]
    assert scale.invert(drawn, np.zeros((1, 1, 2), bool)).tolist() == [[[-400, -150]]]


def test_where_all_is_foreground_there_is_no_background() -> None:
    array = np.arange(1, 61, dtype=np.float32).reshape(3, 4, 5)
    scale = IntensityScale.of(raw_of(array), (0.0, 100.0))
    assert scale == IntensityScale(1.0, 60.0, None)
    assert np.allclose(scale.invert(scale.apply(array)), array, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_an_empty_foreground(dtype: Any) -> None:
    raw = raw_of(np.zeros((2, 3, 4), dtype))
    scale = IntensityScale.of(raw, (0.1, 99.9))
    assert scale == IntensityScale(0.0, 0.0, 0.0)
    scaled = scale.apply(raw.array)
    assert np.array_equal(scaled, raw.array)
    assert np.array_equal(scale.invert(scaled), raw.array)
    assert np.array_equal(scale.invert(scaled + 0.5), raw.array)


def test_a_constant_foreground() -> None:
    array = np.zeros((2, 3, 4), np.float32)
    array[1] = 700
    scale = IntensityScale.of(raw_of(array), (0.1, 99.9))
    assert scale == IntensityScale(700.0, 700.0, 0.0)
    scaled = scale.apply(array)
    assert np.array_equal(scaled, np.zeros((2, 3, 4)))
    assert np.array_equal(scale.invert(scaled, array != 0), array)
    assert np.array_equal(scale.invert(scaled + 0.3, array != 0), array)


def test_uint8_with_percentiles() -> None:
    array = np.zeros((2, 3, 4), np.uint8)
    array[1] = 100 + np.arange(12).reshape(3, 4) * 10
    scale = IntensityScale.of(raw_of(array), (0.0, 100.0))
    assert scale == IntensityScale(100.0, 210.0, 0.0)


@pytest.mark.parametrize("slab_voxels", [1, 7, 100, 10**9])
def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch, slab_voxels: int) -> None:
    array = np.random.default_rng(3).normal(0, 4e4, (11, 5, 6)).astype(np.float32)
    scale = IntensityScale(-3e4, 5e4)
    monkeypatch.setattr(stored_volume, "_SLAB", slab_voxels)
    exact = (array.astype(np.float64) + 3e4) / 8e4
    assert np.array_equal(scale.apply(array), exact.clip(0, 1).astype(np.float32))
    inverse = (array.astype(np.float64) * 8e4 - 3e4).astype(np.float32)
    assert np.array_equal(scale.invert(array), inverse)
    rounded = np.rint(array).clip(-32768, 32767).astype(np.int16)
    assert np.array_equal(cast_to(array, np.dtype(np.int16)), rounded)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, ">i2"])
def test_scaled_voxels_are_nibabel_s(tmp_path: Path, slab: int, suffix: str, dtype: Any) -> None:
    array = np.random.default_rng(4).integers(0, 255, (9, 4, 5, 1)).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype == ">i2" else "<")
    image = nib.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0]), header, dtype=array.dtype)
    image.header.set_slope_inter(0.37, -1024.3)
    nib.save(image, tmp_path / f"ct{suffix}")
    expected = np.asanyarray(nib.load(tmp_path / f"ct{suffix}").dataobj).astype(np.float32)[..., 0]
    raw = read_volume(tmp_path / f"ct{suffix}")
    assert np.array_equal(raw.array, expected)
    assert raw.array.flags.c_contiguous
    assert raw.dtype == np.float32
