import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from prod9.data.intensity import IntensityScale
from prod9.data.volume_io import RawVolume, cast_to, read_volume, write_nifti, write_volume
from prod9.errors import UserError

OBLIQUE = np.array(
    [[1.9, 0.3, 0.0, -20.0], [-0.3, 1.9, 0.1, 30.0], [0.0, -0.1, 2.5, -5.0], [0, 0, 0, 1.0]]
)


def values(shape: tuple[int, ...] = (3, 4, 5), dtype: Any = np.int16) -> np.ndarray:
    return (np.arange(np.prod(shape)) * 7 - 100).reshape(shape).astype(dtype)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=1)
    image.header["descrip"] = b"scanner"
    nib.save(image, path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
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
    assert "must end in" in refused(tmp_path / "case.mha")


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
    assert any(word in refused(path) for word in ("cut short", "not a readable"))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy"])
def test_garbage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"case{suffix}"
    path.write_bytes(bytes(range(256)) * 20)
    assert "not a readable" in refused(path)


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


def raw_of(array: np.ndarray) -> RawVolume:
    return RawVolume(array.astype(np.float32), np.eye(4), array.dtype, Path("case.npy"))


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


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.uint8, [0, 0, 2, 3, 255]),
        (np.int16, [-2, 0, 2, 3, 32767]),
        (np.int64, [-2, 0, 2, 3, 2**63 - 1]),
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
    with pytest.raises(UserError, match="exists; pass --overwrite"):
        write_volume(path, values() + 1)
    assert np.array_equal(read_volume(path).array, values())
    write_volume(path, values() + 1, overwrite=True)
    assert np.array_equal(read_volume(path).array, values() + 1)


def test_writing_where_one_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        write_volume(tmp_path / "file" / "case.nii.gz", values())
    with pytest.raises(UserError, match="must end in"):
        write_volume(tmp_path / "case.png", values())
    with pytest.raises(UserError, match="must end in"):
        write_nifti(tmp_path / "case.npy", values(), np.eye(4))
