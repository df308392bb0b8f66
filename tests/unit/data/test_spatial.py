"""Random changes of shape, against SciPy and closed forms."""

import numpy as np
import pytest
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates

from prod9.config.data import SpatialAugmentationConfig
from prod9.data.array_dataset import ArrayDataset
from prod9.data.dataset import Channel
from prod9.data.spatial import Warp, _basis, changes_shape

SHAPE = (12, 15, 10)
IDENTITY = Warp(np.eye(3), np.zeros((3, 7, 7, 7)))


def data(kind: str = "intensity", spacing: tuple[float, ...] | None = None) -> ArrayDataset:
    random = np.random.default_rng(0)
    images = random.random((1, 1, *SHAPE), dtype=np.float32)
    if kind == "labels":
        images = random.integers(0, 5, (1, 1, *SHAPE)).astype(np.float32)
    return ArrayDataset("d", images, (Channel("c", kind),), spacing_mm=spacing)


def test_no_change_returns_the_volume() -> None:
    whole = IDENTITY.crop(data(), 0, 0, (0, 0, 0), SHAPE)
    assert np.abs(whole - data().whole(0, 0)).max() < 1e-5


def test_a_shift_by_whole_voxels_moves_the_volume() -> None:
    control = np.zeros((3, 7, 7, 7))
    control[1] = 4.0  # mm, of voxels of 2 mm: splines of a constant are that constant
    found = Warp(np.eye(3), control).crop(data(spacing=(1.0, 2.0, 3.0)), 0, 0, (0, 0, 0), SHAPE)
    whole = data().whole(0, 0)
    assert np.abs(found[:, :-2] - whole[:, 2:]).max() < 1e-5
    # The source ends there; its border goes on.
    assert np.abs(found[:, -2:] - whole[:, -1:]).max() < 1e-5


def test_a_crop_is_a_part_of_the_changed_whole() -> None:
    change = SpatialAugmentationConfig(rotation_deg=20, zoom=0.2, deformation_mm=2)
    warp = Warp.draw(np.random.default_rng(3), change)
    whole = warp.crop(data(), 0, 0, (0, 0, 0), SHAPE)
    part = warp.crop(data(), 0, 0, (3, 2, 4), (6, 9, 5))
    assert np.abs(part - whole[3:9, 2:11, 4:9]).max() < 1e-4


def test_interpolation_equals_scipy() -> None:
    change = SpatialAugmentationConfig(rotation_deg=15, zoom=0.1, deformation_mm=1)
    warp = Warp.draw(np.random.default_rng(5), change)
    source = warp.coordinates(SHAPE, (1.0, 1.0, 1.0), (0, 0, 0), SHAPE)
    found = warp.crop(data(), 0, 0, (0, 0, 0), SHAPE)
    wanted = map_coordinates(data().whole(0, 0), source, order=1, mode="nearest")
    assert np.abs(found - wanted).max() < 1e-4


def test_labels_stay_labels() -> None:
    change = SpatialAugmentationConfig(rotation_deg=30, zoom=0.2, deformation_mm=2)
    warp = Warp.draw(np.random.default_rng(1), change)
    assert {*np.unique(warp.crop(data("labels"), 0, 0, (0, 0, 0), SHAPE))} <= {0, 1, 2, 3, 4}


def test_rotation_keeps_distances_in_mm() -> None:
    change = SpatialAugmentationConfig(rotation_deg=40)
    warp = Warp.draw(np.random.default_rng(2), change)
    spacing = np.array((1.0, 2.0, 0.5))
    source = (
        warp.coordinates(SHAPE, spacing.tolist(), (0, 0, 0), SHAPE) * spacing[:, None, None, None]
    )
    steps = [np.linalg.norm(np.diff(source, axis=axis + 1), axis=0) for axis in range(3)]
    for step, size in zip(steps, spacing, strict=True):
        assert np.allclose(step, size)


def test_the_splines_are_cubic_b_splines() -> None:
    places = np.arange(20)
    weights = _basis(places, 20)
    knots = np.arange(-3, 8)  # 7 splines over 4 cells
    at = places / 19 * 4
    for spline in range(7):
        wanted = BSpline.basis_element(knots[spline : spline + 5], extrapolate=False)(at)
        assert np.allclose(weights[:, spline], np.nan_to_num(wanted), atol=1e-6)


@pytest.mark.parametrize("change", [{}, {"flip": True}, {"intensity_scale": 0.1}])
def test_what_changes_no_shape(change: dict[str, object]) -> None:
    assert not changes_shape(SpatialAugmentationConfig.model_validate(change))
