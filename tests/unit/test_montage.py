"""Montages show what they say, the right way up."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from prod9.errors import Prod9Error
from prod9.montage import Panel, by_class, compare, montage, planes, save_figure, three_planes


def test_planes_are_the_middle_slices_with_front_and_top_up() -> None:
    volume = torch.zeros(5, 7, 9)
    volume[4, 3, 4] = 0.25  # right
    volume[2, 6, 4] = 0.5  # front
    volume[2, 3, 8] = 1.0  # top
    middle = three_planes(volume)
    assert middle.shape == (9, 27)
    axial, coronal, sagittal = np.split(middle, 3, axis=1)
    # Axial: x to the right, front up, padded from 7 x 5 to 9 x 9.
    assert axial[4, 6] == 0.25
    assert axial[1, 4] == 0.5
    # Coronal: x to the right, top up. Sagittal: front to the right, top up.
    assert coronal[0, 4] == 1.0
    assert coronal[4, 6] == 0.25
    assert sagittal[0, 4] == 1.0
    assert sagittal[4, 7] == 0.5


def test_rows_by_class_keep_order_and_count() -> None:
    labels = torch.tensor([2, 0, 2, 2])
    volumes = torch.arange(4.0).view(4, 1, 1, 1, 1)
    rows = by_class(volumes, labels, ("a", "b", "c"), 2)
    assert [(name, row.flatten().tolist()) for name, row in rows] == [("a", [1]), ("c", [0, 2])]


def test_a_montage_is_a_picture_of_its_volumes(tmp_path: Path) -> None:
    bright = torch.ones(2, 1, 8, 8, 8)
    rows = [("bright", bright), ("dark", torch.zeros(1, 1, 8, 8, 8))]
    save_figure(tmp_path / "m.png", montage(rows, ["one", "two"], "title"))
    picture = matplotlib.image.imread(tmp_path / "m.png")[..., 0]
    height, width = picture.shape
    assert picture[int(0.45 * height), width // 4] == 1  # first row, first column
    assert picture[int(0.8 * height), width // 4] == 0  # second row, first column
    assert picture[int(0.8 * height), 3 * width // 4] == 1  # second row has no second volume


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Prod9Error, match="cannot write"):
        save_figure(tmp_path / "file" / "m.png", montage([("a", torch.zeros(1, 1, 4, 4, 4))]))


def test_planes_are_cut_through_the_voxel_asked_for() -> None:
    volume = torch.arange(2.0 * 3 * 4).view(2, 3, 4)
    axial, coronal, sagittal = planes(volume, (1, 0, 3))
    assert np.array_equal(axial, volume[:, :, 3].T.flip(0))
    assert np.array_equal(coronal, volume[:, 0, :].T.flip(0))
    assert np.array_equal(sagittal, volume[1].T.flip(0))


def test_compare_cuts_all_panels_to_the_first_ones_box() -> None:
    first = torch.zeros(40, 40, 40)
    first[15:20, 10:30, 20] = 1.0
    other = torch.rand(40, 40, 40, generator=torch.Generator().manual_seed(0))
    figure = compare([Panel("a", first), Panel("b", other, 2.0, "magma")], at=(17, 20, 20))
    shown = [axis.images[0].get_array() for axis in figure.axes]
    # Rows: axial, coronal, sagittal; columns: the panels. A margin of 4 voxels on every side.
    low, high = (11, 6, 16), (24, 34, 25)
    for column, volume in enumerate((first, other)):
        box = volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        for row, plane in enumerate(planes(box, (6, 14, 4))):
            assert np.array_equal(shown[2 * row + column], plane)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["a", "b"]
    assert figure.axes[1].images[0].get_clim() == (0, 2.0)


def test_compare_shows_empty_volumes_whole() -> None:
    figure = compare([Panel("nothing", torch.zeros(6, 5, 4))])
    assert figure.axes[0].images[0].get_array().shape == (5, 6)
