import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from stored_files import OBLIQUE, nifti, values

from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.write import write_volume
from prod9.errors import Prod9Error


def refused(path: Path) -> str:
    with pytest.raises(Prod9Error) as caught:
        read_volume(path)
    message = str(caught.value)
    assert str(path) in message
    return message


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, ">i2"])
def test_reading_gives_values_affine_and_dtype(tmp_path: Path, suffix: str, dtype: Any) -> None:
    path, array = tmp_path / f"case{suffix}", values(dtype=dtype)
    if suffix == ".npy":
        np.save(path, array)
    else:
        nifti(path, array)
    raw = read_volume(path)
    assert raw.array.dtype == np.float32
    assert np.array_equal(raw.array, array.astype(np.float32))
    assert raw.dtype == np.dtype(dtype).newbyteorder("=")
    assert raw.path == path
    expected = np.eye(4) if suffix == ".npy" else OBLIQUE
    assert np.allclose(raw.affine, expected, atol=1e-5)


def test_bool_and_half_arrays(tmp_path: Path) -> None:
    for dtype in (np.bool_, np.float16):
        np.save(tmp_path / "case.npy", values(dtype=dtype))
        raw = read_volume(tmp_path / "case.npy")
        assert np.array_equal(raw.array, values(dtype=dtype).astype(np.float32))
        assert raw.dtype == dtype
        write_volume(tmp_path / "copy.npy", raw.array, like=raw, overwrite=True)
        assert np.array_equal(np.load(tmp_path / "copy.npy"), values(dtype=dtype))
        write_volume(tmp_path / "copy.nii", raw.array, like=raw, overwrite=True)
        assert np.array_equal(read_volume(tmp_path / "copy.nii").array, raw.array)


@pytest.mark.parametrize("suffix", [".nii.gz", ".npy"])
def test_trailing_axes_of_one_are_dropped(tmp_path: Path, suffix: str) -> None:
    path, array = tmp_path / f"case{suffix}", values((3, 1, 5, 1, 1))
    if suffix == ".npy":
        np.save(path, array)
    else:
        nifti(path, array)
    assert read_volume(path).array.shape == (3, 1, 5)


def test_a_scaled_nifti_is_float(tmp_path: Path) -> None:
    image = nib.Nifti1Image(values(), OBLIQUE)
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "scaled.nii.gz")
    raw = read_volume(tmp_path / "scaled.nii.gz")
    assert np.array_equal(raw.array, values() * 0.5 + 3)
    assert raw.dtype == np.float32
    write_volume(tmp_path / "copy.nii.gz", raw.array + 0.25, like=raw)
    assert np.array_equal(read_volume(tmp_path / "copy.nii.gz").array, values() * 0.5 + 3.25)


def test_missing_and_unknown(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.nii.gz")
    assert "does not exist" in refused(tmp_path / "none.npy")
    (tmp_path / "case.img").touch()
    assert "must end in" in refused(tmp_path / "case.img")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_cut_short(tmp_path: Path, suffix: str, keep: float) -> None:
    path, array = tmp_path / f"case{suffix}", values((12, 13, 14), np.float32)
    if suffix == ".npy":
        np.save(path, array)
    else:
        nifti(path, array)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    assert any(word in refused(path) for word in ("cut short", "cannot be read"))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy"])
def test_garbage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"case{suffix}"
    path.write_bytes(bytes(range(256)) * 20)
    assert "cannot be read" in refused(path)


def test_pickled(tmp_path: Path) -> None:
    path = tmp_path / "case.npy"
    np.save(path, np.array([[[{"a": 1}]]], dtype=object))
    assert "pickled" in refused(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".npy"])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5, 2)])
def test_not_three_axes(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / f"case{suffix}"
    if suffix == ".npy":
        np.save(path, values(shape))
    else:
        nifti(path, values(shape))
    assert " x ".join(map(str, shape)) in refused(path)


def test_empty_axis(tmp_path: Path) -> None:
    np.save(tmp_path / "case.npy", np.zeros((3, 0, 4)))
    assert "3 x 0 x 4" in refused(tmp_path / "case.npy")


@pytest.mark.parametrize("suffix", [".nii.gz", ".npy"])
@pytest.mark.parametrize(("bad", "count"), [(np.nan, 1), (np.inf, 2), (-np.inf, 3)])
def test_nan_and_infinity_are_counted(tmp_path: Path, suffix: str, bad: float, count: int) -> None:
    path, array = tmp_path / f"case{suffix}", values(dtype=np.float32)
    array.flat[:count] = bad
    if suffix == ".npy":
        np.save(path, array)
    else:
        nifti(path, array)
    assert f"{count} of 60 voxels" in refused(path)


def test_beyond_float32(tmp_path: Path) -> None:
    np.save(tmp_path / "case.npy", np.full((2, 2, 2), 1e300))
    assert "8 of 8 voxels" in refused(tmp_path / "case.npy")


def test_colour_and_complex(tmp_path: Path) -> None:
    colour = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "colour.nii.gz")
    assert "real numbers" in refused(tmp_path / "colour.nii.gz")
    for dtype in (np.complex64, "<U3"):
        np.save(tmp_path / "case.npy", np.zeros((2, 2, 2), dtype))
        assert "real numbers" in refused(tmp_path / "case.npy")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_forged_size_is_refused_before_allocating(tmp_path: Path, suffix: str) -> None:
    path = nifti(tmp_path / "case.nii", values())
    content = bytearray(path.read_bytes())
    content[40:56] = np.array([3] + [30_000] * 3, "<i2").tobytes() + content[48:56]
    path = tmp_path / f"forged{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    assert "30000 x 30000 x 30000" in refused(path)
