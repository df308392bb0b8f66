from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from stored_files import OBLIQUE, nifti, values

from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.write import cast_to, write_nifti, write_volume
from prod9.errors import Prod9Error


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.uint8, [0, 0, 2, 3, 255]),
        (np.int16, [-2, 0, 2, 3, 32767]),
        (np.int64, [-2, 0, 2, 3, 2**63 - 1024]),
        (np.float32, [-1.6, 0.4, 2.5, 2.6, 1e30]),
    ],
)
def test_integers_are_rounded_and_clipped(dtype: Any, expected: list[float]) -> None:
    result = cast_to(np.array([-1.6, 0.4, 2.5, 2.6, 1e30], np.float32), np.dtype(dtype))
    assert result.dtype == dtype
    assert np.array_equal(result, np.array(expected, dtype))
    assert cast_to(np.array([1e30, -1e30]), np.dtype(np.float16)).tolist() == [65504, -65504]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_new_nifti_says_where_it_lies(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"case.1{suffix}"
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    write_nifti(path, values(dtype=np.float32) / 3, affine, np.uint8)
    image: Any = nib.load(path)
    assert np.array_equal(image.affine, affine)
    assert image.get_data_dtype() == np.uint8
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header.get_zooms() == (2, 2, 3)
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 2
    assert np.array_equal(image.get_sform(), affine)
    assert np.array_equal(image.get_qform(), affine)
    expected = np.rint(values(dtype=np.float32) / 3).clip(0, 255)
    assert np.array_equal(np.asanyarray(image.dataobj), expected)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_result_keeps_the_source_header(tmp_path: Path) -> None:
    raw = read_volume(nifti(tmp_path / "in.nii.gz", values((3, 4, 5, 1))))
    write_volume(tmp_path / "out.nii.gz", raw.array + 0.4, like=raw)
    source: Any = nib.load(tmp_path / "in.nii.gz")
    result: Any = nib.load(tmp_path / "out.nii.gz")
    assert result.shape == (3, 4, 5)
    assert result.get_data_dtype() == np.int16
    assert np.array_equal(np.asanyarray(result.dataobj), values())
    assert np.array_equal(result.affine, source.affine)
    assert np.array_equal(result.get_qform(), source.get_qform())
    for name in ("sform_code", "qform_code", "descrip", "xyzt_units"):
        assert result.header[name] == source.header[name]
    assert result.header.get_zooms() == source.header.get_zooms()[:3]


def test_a_nifti2_source_stays_one(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(values(), OBLIQUE), tmp_path / "in.nii")
    raw = read_volume(tmp_path / "in.nii")
    write_volume(tmp_path / "out.nii", raw.array, like=raw)
    assert isinstance(nib.load(tmp_path / "out.nii"), nib.Nifti2Image)
    assert np.array_equal(read_volume(tmp_path / "out.nii").array, values())


@pytest.mark.parametrize("name", ["case.nii.gz", "case.npy"])
def test_nothing_is_overwritten_unasked(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_volume(path, values())
    with pytest.raises(Prod9Error, match="exists; pass --overwrite"):
        write_volume(path, values() + 1)
    assert np.array_equal(read_volume(path).array, values())
    write_volume(path, values() + 1, overwrite=True)
    assert np.array_equal(read_volume(path).array, values() + 1)


def test_writing_where_one_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Prod9Error, match="cannot write"):
        write_volume(tmp_path / "file" / "case.nii.gz", values())
    with pytest.raises(Prod9Error, match="must end in"):
        write_volume(tmp_path / "case.png", values())
    with pytest.raises(Prod9Error, match="must end in"):
        write_nifti(tmp_path / "case.npy", values(), np.eye(4))
