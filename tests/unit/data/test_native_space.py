from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from prod9.config import PreprocessingConfig
from prod9.data.geometry import Placement
from prod9.data.intensity import IntensityScale
from prod9.data.native_space import NativeVolume
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error

SHAPE = (14, 11, 9)
SPACING = (1.0, 1.5, 3.0)
WHOLE = (0.0, 100.0)
"""Percentiles that clip nothing."""


def turned(degrees: float) -> np.ndarray:
    """Return the turn about the slice axis."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def oblique() -> np.ndarray:
    """Return an affine whose axes run nearly to the back, the left and up, 12 degrees off."""
    axes = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, 1]], float)
    affine = np.eye(4)
    affine[:3, :3] = turned(12) @ axes * SPACING
    affine[:3, 3] = (40, -20, 7)
    return affine


def ramp() -> np.ndarray:
    """Return a head of rising intensities with nothing around it, int16."""
    d, h, w = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    voxels = 100 + 40 * d + 25 * h + 90 * w
    voxels[:2] = voxels[-3:] = 0
    voxels[:, :3] = 0
    return voxels.astype(np.int16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(ramp(), oblique()), file)  # type: ignore[attr-defined]
    return file


def settings(spacing: Any, percentiles: Any = WHOLE) -> PreprocessingConfig:
    return PreprocessingConfig(spacing_mm=spacing, percentiles=percentiles)


def test_what_a_network_sees_is_scaled_and_upright(path: Path) -> None:
    # The first stored axis runs backwards, the second to the left: turned to right and front,
    # they change places, and both are read from their ends. Spacing: 1.5 to the right, 1 forward.
    prepared = NativeVolume.of(read_volume(path), settings((1.5, 1.0, 3.0)))
    stored = ramp().astype(np.float64)
    head = stored[stored > 0]
    expected = np.where(stored > 0, (stored - head.min()) / (head.max() - head.min()), 0)
    expected = expected.transpose(1, 0, 2)[::-1, ::-1]
    array = prepared.array()
    assert array.dtype == np.float32
    assert array.shape == (11, 14, 9)
    np.testing.assert_allclose(array, expected, rtol=0, atol=1e-6)
    assert torch.equal(prepared.tensor(), torch.from_numpy(array)[None, None])
    assert np.array_equal(prepared.foreground, ramp() != 0)


def test_without_resampling_the_way_there_and_back_is_the_scan(path: Path) -> None:
    prepared = NativeVolume.of(read_volume(path), settings((1.5, 1.0, 3.0)))
    for foreground in (None, prepared.foreground):
        back = prepared.restore(torch.from_numpy(prepared.array()), foreground=foreground)
        assert back.shape == SHAPE
        if foreground is None:  # the one darkest voxel of the head is as dark as background
            darkest = ramp() == ramp()[ramp() > 0].min()
            assert back[darkest].tolist() == [0]
            back[darkest] = ramp()[darkest]
        np.testing.assert_allclose(back, ramp(), rtol=0, atol=1e-3)


def test_resampled_ramps_come_back_where_they_are_straight(path: Path) -> None:
    # Linear interpolation gives back what is linear: everything a slice away from the head's edge.
    prepared = NativeVolume.of(read_volume(path), settings((1.0, 1.0, 1.0)))
    array = prepared.array()
    assert array.shape == (16, 14, 27)
    back = prepared.restore(torch.from_numpy(array), foreground=prepared.foreground)
    inner = (slice(3, 10), slice(4, 10), slice(1, 8))
    np.testing.assert_allclose(back[inner], ramp()[inner], rtol=0, atol=1e-2)


def test_it_is_scale_then_placement(path: Path) -> None:
    prepared = NativeVolume.of(read_volume(path), settings((2.0, 2.0, 2.0), (1.0, 99.0)))
    scale = IntensityScale.of(prepared.raw, (1.0, 99.0))
    placement = Placement.of(SHAPE, prepared.raw.affine, (2.0, 2.0, 2.0))
    expected = placement.apply(scale.apply(prepared.raw.array))
    assert np.array_equal(prepared.array(), expected)
    volume = torch.rand(placement.shape, generator=torch.Generator().manual_seed(0))
    expected = scale.invert(placement.invert(volume.numpy()), prepared.foreground)
    back = prepared.restore(volume, foreground=prepared.foreground)
    assert np.array_equal(back, expected)


@pytest.mark.parametrize("spacing", [(1.5, 1.0, 3.0), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0)])
def test_nothing_appears_outside_the_foreground(path: Path, spacing: Any) -> None:
    # Whatever a network says there, the background is known.
    prepared = NativeVolume.of(read_volume(path), settings(spacing))
    bright = torch.ones(prepared.array().shape)
    back = prepared.restore(bright, foreground=prepared.foreground)
    assert not back[ramp() == 0].any()
    np.testing.assert_allclose(back[ramp() > 0], ramp().max(), rtol=1e-6)
    # Without a foreground to go by it comes back as bright.
    assert prepared.restore(bright).all()


def test_another_scans_intensities(path: Path) -> None:
    # A drawn modality takes the place of this scan and the brightness of another.
    prepared = NativeVolume.of(read_volume(path), settings((1.5, 1.0, 3.0)))
    half = torch.full(prepared.array().shape, 0.5)
    other = IntensityScale(1000.0, 3000.0, 0.0)
    back = prepared.restore(half, other, prepared.foreground)
    assert np.array_equal(back, np.where(ramp() > 0, 2000, 0))


def test_without_preprocessing_a_volume_stays_on_its_grid(path: Path) -> None:
    prepared = NativeVolume.of(read_volume(path), None)
    assert prepared.placement is None
    np.testing.assert_allclose(prepared.array(), ramp() / ramp().max(), rtol=0, atol=1e-6)
    back = prepared.restore(torch.from_numpy(prepared.array()))
    np.testing.assert_allclose(back, ramp(), rtol=0, atol=1e-3)
    # uint8 is what MedMNIST has: 255 is 1, whatever the volume holds.
    raw = StoredVolume(np.full((2, 2, 2), 51, np.float32), np.eye(4), np.dtype(np.uint8), path)
    assert NativeVolume.of(raw, None).array()[0, 0, 0] == np.float32(0.2)


def test_a_grid_that_would_be_too_large_is_refused_by_name(path: Path) -> None:
    with pytest.raises(Prod9Error, match=r"scan\.nii\.gz would have .* choose a wider spacing"):
        NativeVolume.of(read_volume(path), settings((1e-3, 1e-3, 1e-3)))
