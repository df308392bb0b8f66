"""A copy of a file in which only what lies inside a mask is new."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from prod9.data.volume_files import stored_volume
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.write import write_inside
from prod9.errors import Prod9Error

SHAPE = (7, 5, 6)
TURN = np.deg2rad(20)
AFFINE = np.array(
    [
        [-2.0 * np.cos(TURN), 0.0, 3.0 * np.sin(TURN), 90.0],
        [0.0, -1.5, 0.0, 126.0],
        [2.0 * np.sin(TURN), 0.0, 3.0 * np.cos(TURN), -72.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
INSIDE = np.zeros(SHAPE, bool)
INSIDE[2:5, 1:4, 2:5] = True


def stored_values(dtype: Any) -> np.ndarray:
    random = np.random.default_rng(1)
    if np.dtype(dtype).kind == "f":
        # Wider than float32 keeps, with a zero that has a sign.
        values = random.normal(0, 1e3, SHAPE).astype(dtype)
        values[0, 0, 0] = -0.0
        return values
    limits = np.iinfo(dtype)
    values = random.integers(limits.min, limits.max, SHAPE, np.dtype(dtype).newbyteorder("="))
    return values.astype(dtype)


def nifti(path: Path, array: np.ndarray, slope: float = 1, inter: float = 0) -> Path:
    kind: Any = nib.Nifti2Image if "nifti2" in path.name else nib.Nifti1Image
    header = kind.header_class(endianness=">" if array.dtype.byteorder == ">" else "<")
    image = kind(array, AFFINE, header, dtype=array.dtype)
    image.set_sform(AFFINE, code=1)
    image.set_qform(AFFINE, code=2)
    image.header["descrip"] = b"scanner"
    image.header["cal_max"] = 80
    image.header.extensions.append(Nifti1Extension("comment", b"kept as it is"))
    image.header.set_slope_inter(slope, inter)
    nib.save(image, path)
    return path


def unscaled(path: Path) -> np.ndarray:
    """Return the voxels as they are in the file."""
    if path.suffix == ".npy":
        return np.load(path)
    image: Any = nib.load(path)
    return np.array(image.dataobj.get_unscaled())


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def check(source: Path, target: Path, slope: float = 1, inter: float = 0) -> None:
    before = unscaled(source)
    random = np.random.default_rng(2)
    if before.dtype.kind == "f":
        wanted = random.normal(0, 500, SHAPE)
        tolerance = 1e-3
    else:
        limits = np.iinfo(before.dtype)
        wanted = random.uniform(limits.min, limits.max, SHAPE) * slope + inter
        tolerance = abs(slope) * 0.501 + abs(wanted).max() * 1e-6
    write_inside(target, source, wanted.astype(np.float32), INSIDE)
    after = unscaled(target)
    assert after.dtype == before.dtype
    assert after.shape == before.shape
    mask = INSIDE.reshape(before.shape)
    assert before[~mask].tobytes() == after[~mask].tobytes()
    result = read_volume(target)
    assert np.abs(result.array - wanted)[INSIDE].max() <= tolerance
    assert not np.array_equal(before[mask], after[mask])


@pytest.mark.parametrize("slab", [1 << 22, 31])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.int32, np.float32, np.float64])
def test_outside_not_a_bit_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, suffix: str, slab: int
) -> None:
    monkeypatch.setattr(stored_volume, "_SLAB", slab)
    source, target = tmp_path / f"scan{suffix}", tmp_path / "out" / f"painted{suffix}"
    if suffix == ".npy":
        np.save(source, stored_values(dtype))
    else:
        nifti(source, stored_values(dtype))
    check(source, target)
    assert [file.name for file in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("slope", "inter"), [(0.37, -1024.0), (-2.5, 7.0), (1.0, -1024.0)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_slope_and_integers_stay(
    tmp_path: Path, dtype: Any, slope: float, inter: float, suffix: str
) -> None:
    source = nifti(tmp_path / f"scan{suffix}", stored_values(dtype), slope, inter)
    target = tmp_path / f"painted{suffix}"
    check(source, target, slope, inter)
    before, after = (nib.load(path) for path in (source, target))
    assert after.dataobj.slope == before.dataobj.slope == pytest.approx(slope)
    assert after.dataobj.inter == before.dataobj.inter == pytest.approx(inter)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "nifti2.nii.gz"])
def test_the_header_is_the_same_to_the_byte(tmp_path: Path, name: str) -> None:
    source = nifti(tmp_path / name, stored_values(np.int16), 0.5, 3)
    image: Any = nib.load(source)
    for target in (tmp_path / "painted.nii", tmp_path / "painted.nii.gz"):
        write_inside(target, source, np.zeros(SHAPE, np.float32), INSIDE)
        offset = image.dataobj.offset
        assert content(target)[:offset] == content(source)[:offset]
        assert b"kept as it is" in content(target)[:offset]
        result: Any = nib.load(target)
        assert type(result) is type(image)
        assert np.array_equal(result.affine, image.affine)
        assert np.array_equal(result.get_qform(), image.get_qform())
    # No name and no time in the gzip header: the same content is the same file.
    assert (tmp_path / "painted.nii.gz").read_bytes()[3:8] == bytes(5)


def test_an_empty_mask_copies_and_a_full_one_replaces(tmp_path: Path) -> None:
    source = nifti(tmp_path / "scan.nii", stored_values(np.int16))
    target, new = tmp_path / "painted.nii", np.arange(210, dtype=np.float32).reshape(SHAPE) - 100
    write_inside(target, source, new, np.zeros(SHAPE, bool))
    assert target.read_bytes() == source.read_bytes()
    write_inside(target, source, new, np.ones(SHAPE, bool), overwrite=True)
    assert np.array_equal(unscaled(target), new)


def test_a_file_may_be_painted_in_place(tmp_path: Path) -> None:
    for path in (nifti(tmp_path / "scan.nii.gz", stored_values(np.int16)), tmp_path / "scan.npy"):
        if path.suffix == ".npy":
            np.save(path, stored_values(np.int16))
        with pytest.raises(Prod9Error, match="exists; pass --overwrite"):
            write_inside(path, path, np.ones(SHAPE, np.float32), INSIDE)
        write_inside(path, path, np.ones(SHAPE, np.float32), INSIDE, overwrite=True)
        assert np.array_equal(unscaled(path), np.where(INSIDE, 1, stored_values(np.int16)))


def test_integers_are_rounded_and_clipped_through_the_slope(tmp_path: Path) -> None:
    source = nifti(tmp_path / "scan.nii", np.zeros(SHAPE, np.uint8), 0.5, 10)
    new = np.zeros(SHAPE, np.float32)
    new[2, 1, 2:5] = [1e9, 10.7, -3]  # stored: 255 (clipped), 1 (of 1.4), 0 (clipped)
    write_inside(tmp_path / "out.nii", source, new, new != 0)
    assert unscaled(tmp_path / "out.nii")[2, 1, 2:5].tolist() == [255, 1, 0]
    assert read_volume(tmp_path / "out.nii").array[2, 1, 2:5].tolist() == [137.5, 10.5, 10]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.bool_, np.float16, np.int64])
def test_arrays_keep_their_kind(tmp_path: Path, dtype: Any, order: Any) -> None:
    before = np.asarray(np.arange(210).reshape(SHAPE) % 2, dtype=dtype, order=order)
    np.save(tmp_path / "scan.npy", before)
    new = np.where(before, 0, 1).astype(np.float32)
    write_inside(tmp_path / "out.npy", tmp_path / "scan.npy", new, INSIDE)
    after = np.load(tmp_path / "out.npy")
    assert (after.dtype, after.flags.f_contiguous) == (before.dtype, before.flags.f_contiguous)
    assert np.array_equal(after, np.where(INSIDE, new, before))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy"])
def test_trailing_axes_of_one_stay(tmp_path: Path, suffix: str) -> None:
    source, array = tmp_path / f"scan{suffix}", stored_values(np.int16)[..., None, None]
    if suffix == ".npy":
        np.save(source, array)
    else:
        nifti(source, array)
    check(source, tmp_path / f"out{suffix}")


def refused(path: Path, source: Path, new: np.ndarray, inside: np.ndarray = INSIDE) -> str:
    with pytest.raises(Prod9Error) as caught:
        write_inside(path, source, new, inside)
    assert not path.exists()
    return str(caught.value)


def test_what_is_refused(tmp_path: Path) -> None:
    source, new = nifti(tmp_path / "scan.nii.gz", stored_values(np.int16)), np.zeros(SHAPE)
    target = tmp_path / "out.nii.gz"
    assert "must end in .nii.gz" in refused(tmp_path / "out.npy", source, new)
    message = refused(target, source, new[1:])
    assert "7 x 5 x 6 voxels, but the new ones are 6 x 5 x 6" in message
    assert str(source) in message
    assert "the mask 7 x 5 x 5" in refused(target, source, new, INSIDE[..., 1:])
    spoilt = new.copy()
    spoilt[0, 0, 0] = np.nan
    write_inside(tmp_path / "fine.nii.gz", source, spoilt, INSIDE)  # outside: never looked at
    spoilt[3, 2, 3] = np.inf
    assert "1 of 27 voxels" in refused(target, source, spoilt)
    assert "does not exist" in refused(target, tmp_path / "none.nii.gz", new)
    for keep in (10, 0.5, 0.95):
        whole = source.read_bytes()
        cut = tmp_path / "cut.nii.gz"
        cut.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
        assert "cannot be read" in refused(target, cut, new)


def test_a_packed_file_that_ends_too_soon(tmp_path: Path) -> None:
    source = nifti(tmp_path / "scan.nii.gz", stored_values(np.int16))
    source.write_bytes(gzip.compress(content(source)[:-5]))
    new = np.zeros(SHAPE, np.float32)
    assert "cut short" in refused(tmp_path / "out.nii.gz", source, new)
