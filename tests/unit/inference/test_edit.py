"""Label maps that are changed: volumes, places, and what is left where a label was."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from prod9.cli.main import app
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error
from prod9.inference.edit import edit, parse

SIDES = (24, 20, 22)
AFFINE = np.array([[-1.0, 0, 0, 12], [0, 0.8, 0, -8], [0, 0, 1.5, 3], [0, 0, 0, 1]])


def stored(array: np.ndarray) -> StoredVolume:
    return StoredVolume.of(array, Path("seg.nii.gz"), AFFINE)


@pytest.fixture
def labels() -> np.ndarray:
    """Two halves, 1 and 2, and a block of 3 between them."""
    array = np.ones(SIDES, np.uint8)
    array[12:] = 2
    array[8:14, 6:13, 6:15] = 3
    return array


@pytest.mark.parametrize("percent", [-60, -20, 20, 150])
def test_a_label_grows_to_the_voxel(labels: np.ndarray, percent: int) -> None:
    found = edit(stored(labels), parse(grow=[f"3={percent:+}%"])).array
    before, after = labels == 3, found == 3
    assert after.sum() == round(before.sum() * (1 + percent / 100))
    # Nested: it keeps its place.
    assert not (before & ~after).any() if percent > 0 else not (after & ~before).any()
    # What it leaves belongs to its neighbours; nothing else changes.
    assert np.array_equal(found[~before & ~after], labels[~before & ~after])
    assert {*np.unique(found)} == {1, 2, 3}


def test_it_grows_by_the_same_distance_in_mm() -> None:
    array = np.zeros((31, 31, 31), np.uint8)
    array[15, 15, 15] = 1
    found = edit(stored(array), parse(grow=["1=+99900%"])).array == 1
    extent = [np.ptp(np.argwhere(found)[:, axis]) * size for axis, size in enumerate((1, 0.8, 1.5))]
    assert max(extent) - min(extent) < 3


def test_a_label_moves_by_mm(labels: np.ndarray) -> None:
    found = edit(stored(labels), parse(move=["3=2,-1.6,3"])).array
    # The first axis points to the left: 2 mm to the right are 2 voxels back.
    wanted = np.zeros(SIDES, bool)
    wanted[6:12, 4:11, 8:17] = True
    assert np.array_equal(found == 3, wanted)
    hole = (labels == 3) & ~wanted
    assert {*np.unique(found[hole])} == {1, 2}


def test_a_sphere_is_put_in(labels: np.ndarray) -> None:
    found = edit(stored(labels), parse(insert=["9=sphere:-4,0,12,5"])).array == 9
    volume = found.sum() * 1.2  # mm3 a voxel
    assert volume == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.05)
    middle = AFFINE[:3, :3] @ np.argwhere(found).mean(0) + AFFINE[:3, 3]
    assert np.allclose(middle, (-4, 0, 12), atol=0.8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "at least one change"),
        ({"grow": ["3=20"]}, "is not understood; write --grow"),
        ({"grow": ["5=+20%"]}, "has no label 5; it has 1, 2, 3"),
        ({"grow": ["3=-100%"]}, "there would be 0 of"),
        ({"move": ["3=100,0,0"]}, "would leave the volume"),
        ({"insert": ["3=cube:1,2,3,4"]}, "is not understood; write --insert"),
        ({"insert": ["3=sphere:500,0,0,4"]}, "its middle lies at 0, 0, 19 mm"),
        ({"insert": ["0=sphere:0,0,0,4"]}, "give one from 1"),
    ],
)
def test_changes_that_do_not_fit(
    labels: np.ndarray, changes: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(Prod9Error, match=said):
        edit(stored(labels), parse(**changes))


def test_the_command_keeps_grid_and_type(labels: np.ndarray, tmp_path: Path) -> None:
    path, output = tmp_path / "seg.nii.gz", tmp_path / "more.nii.gz"
    nib.Nifti1Image(labels, AFFINE).to_filename(path)
    words = ["edit", str(path), "--grow", "3=+20%", "--output", str(output)]
    assert CliRunner().invoke(app, words).exit_code == 0
    found = nib.load(output)
    assert np.allclose(found.affine, AFFINE)
    assert found.get_data_dtype() == np.uint8
    assert (np.asanyarray(found.dataobj) == 3).sum() == round((labels == 3).sum() * 1.2)
    result = CliRunner().invoke(app, words)  # it is there already
    assert isinstance(result.exception, Prod9Error)
