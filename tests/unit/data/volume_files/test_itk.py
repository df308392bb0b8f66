import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

sitk = pytest.importorskip("SimpleITK")
from itk_files import image, same_locale, write_dicom  # noqa: E402

from prod9.data.volume_files import itk as itk_module  # noqa: E402
from prod9.data.volume_files.find import find_volumes  # noqa: E402
from prod9.data.volume_files.read import read_volume  # noqa: E402
from prod9.data.volume_files.write import write_volume  # noqa: E402
from prod9.errors import Prod9Error  # noqa: E402

SUFFIXES = [".nrrd", ".nhdr", ".mha", ".mhd"]


def refused(path: Path, part: str = "", named: Path | None = None) -> str:
    """Assert that a volume is refused in one sentence that names the file; return it."""
    with pytest.raises(Prod9Error) as caught:
        read_volume(path, part)
    message = str(caught.value)
    assert str(named or path) in message
    assert message.endswith(".")
    assert "\n" not in message
    assert not re.search(r"\. [A-Z]", message)
    return message


def same_as_nifti(volume: Any, path: Path, tmp_path: Path, part: str = "") -> None:
    """Assert that prod9 makes of ``path`` what nibabel makes of the volume as NIfTI."""
    sitk.WriteImage(volume, tmp_path / "reference.nii.gz")
    reference = nib.load(tmp_path / "reference.nii.gz")
    stored = read_volume(path, part)
    assert np.array_equal(stored.array, np.asarray(reference.dataobj))
    assert np.allclose(stored.affine, reference.affine, atol=2e-5)
    assert stored.dtype == reference.get_data_dtype()
    assert stored.header is None
    assert stored.path == path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_files_are_what_nifti_is(tmp_path: Path, suffix: str, packed: bool, dtype: Any) -> None:
    volume, path = image(dtype=dtype), tmp_path / f"case{suffix}"
    sitk.WriteImage(volume, path, useCompression=packed)
    same_as_nifti(volume, path, tmp_path)


def test_mirrored_axes(tmp_path: Path) -> None:
    volume = sitk.Flip(image(), (True, False, True))
    sitk.WriteImage(volume, tmp_path / "case.nrrd")
    same_as_nifti(volume, tmp_path / "case.nrrd", tmp_path)


def test_dicom_is_what_nifti_is(tmp_path: Path) -> None:
    volume = image()
    write_dicom(tmp_path / "scan", volume)
    same_as_nifti(volume, tmp_path / "scan", tmp_path)


def test_dicom_is_rescaled(tmp_path: Path) -> None:
    volume = image()
    tags = {"0028|1053": "2", "0028|1052": "-1000"}
    shifted = volume - sitk.GetArrayFromImage(volume).min() % 2  # written as (v + 1000) / 2
    even = sitk.Cast(shifted / 2, sitk.sitkInt16) * 2
    write_dicom(tmp_path / "scan", even, tags=tags)
    stored = read_volume(tmp_path / "scan")
    assert np.array_equal(stored.array, sitk.GetArrayFromImage(even).T)
    assert stored.dtype == np.int32


@pytest.mark.parametrize("slope", [b"2", b".5"])
def test_a_slice_with_a_slope_of_its_own(tmp_path: Path, slope: bytes) -> None:
    volume, folder = sitk.Cast(image() / 2, sitk.sitkInt16) * 2, tmp_path / "scan"
    plain = sitk.GetArrayFromImage(volume).T
    write_dicom(folder, volume, leave_out=(3,))
    tags = {"0028|1053": "2", "0028|1052": "0"}
    (path,) = write_dicom(folder, volume, tags=tags, leave_out=(0, 1, 2, 4, 5, 6))
    content = path.read_bytes()
    written = b"\x28\x00\x53\x10\x02\x00\x00\x00"
    assert content.count(written + b"2 ") == 1
    path.write_bytes(content.replace(written + b"2 ", written + slope.ljust(2)))
    stored = read_volume(folder)
    assert stored.dtype == np.float32
    assert np.array_equal(stored.array[..., 3], plain[..., 3] / 2 * float(slope))
    assert np.array_equal(stored.array[..., 4], plain[..., 4])


def test_two_series_in_one_folder(tmp_path: Path) -> None:
    one, other, folder = image(), image((4, 5, 6)), tmp_path / "scan"
    write_dicom(folder, one, "1.2.826.0.1.3680043.2.1125.1")
    write_dicom(folder, other, "1.2.826.0.1.3680043.2.1125.2")
    same_as_nifti(one, folder, tmp_path, "1.2.826.0.1.3680043.2.1125.1")
    same_as_nifti(other, folder, tmp_path, "1.2.826.0.1.3680043.2.1125.2")
    assert "1.2.826.0.1.3680043.2.1125.2" in refused(folder)
    refused(folder, "1.2.3")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_one_volume_of_several(tmp_path: Path, suffix: str) -> None:
    series, path = image((5, 6, 7, 3)), tmp_path / f"series{suffix}"
    sitk.WriteImage(series, path)
    single = image()
    for part in range(3):
        stored = read_volume(path, str(part))
        expected = sitk.GetArrayFromImage(series)[part].T
        assert np.array_equal(stored.array, expected)
        sitk.WriteImage(single, tmp_path / "single.nii")
        assert np.allclose(stored.affine, nib.load(tmp_path / "single.nii").affine, atol=1e-5)
    for part in ("", "3", "-1", "x", "²"):
        assert "5 x 6 x 7 x 3" in refused(path, part)


def test_a_single_volume_is_number_0(tmp_path: Path) -> None:
    for suffix in (".nii.gz", ".nrrd"):
        path = tmp_path / f"case{suffix}"
        sitk.WriteImage(image(), path)
        assert np.array_equal(read_volume(path, "0").array, read_volume(path).array)
        refused(path, "1")


def test_arrays_of_npz(tmp_path: Path) -> None:
    path, array = tmp_path / "case.npz", np.arange(24.0).reshape(2, 3, 4)
    np.savez(path, a=array, b=array + 1)
    assert np.array_equal(read_volume(path, "b").array, array + 1)
    assert np.array_equal(read_volume(path, "b").affine, np.eye(4))
    assert "a, b" in refused(path)
    refused(path, "c")
    np.savez_compressed(path, only=array)
    assert np.array_equal(read_volume(path).array, array)
    np.save(tmp_path / "case.npy", array)
    refused(tmp_path / "case.npy", "only")


def test_a_result_is_written_as_nifti_with_the_same_geometry(tmp_path: Path) -> None:
    sitk.WriteImage(image(), tmp_path / "case.nrrd")
    stored = read_volume(tmp_path / "case.nrrd")
    write_volume(tmp_path / "result.nii.gz", stored.array, like=stored)
    ours, theirs = sitk.ReadImage(tmp_path / "result.nii.gz"), image()
    assert ours.GetPixelID() == theirs.GetPixelID()
    assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(ours, get)(), getattr(theirs, get)(), atol=1e-5)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_files(tmp_path: Path, suffix: str, packed: bool) -> None:
    path = tmp_path / f"case{suffix}"
    sitk.WriteImage(image((12, 13, 14)), path, useCompression=packed)
    data = next((each for each in tmp_path.iterdir() if each != path), path)
    content = data.read_bytes()
    for keep in (0.95, 0.5, 0.0):
        data.write_bytes(content[: int(keep * len(content))])
        refused(path)
    if packed:
        flipped = bytearray(content)
        flipped[-len(content) // 4] ^= 0xFF
        data.write_bytes(flipped)
        refused(path)
    if data != path:
        data.unlink()
        refused(path)
    path.write_bytes(bytes(range(256)) * 20)
    refused(path)
    path.unlink()
    refused(path)


def test_colour_complex_flat_and_not_finite(tmp_path: Path) -> None:
    colour = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    flat = sitk.GetImageFromArray(np.zeros((5, 6), np.int16))
    nan = sitk.GetImageFromArray(np.full((3, 4, 5), np.nan, np.float32))
    for name, made in (("colour", colour), ("flat", flat), ("nan", nan)):
        for suffix in (".nrrd", ".mha"):
            sitk.WriteImage(made, tmp_path / f"{name}{suffix}")
            refused(tmp_path / f"{name}{suffix}")


def test_a_forged_size_is_refused_before_allocating(tmp_path: Path) -> None:
    path = tmp_path / "case.nhdr"
    sitk.WriteImage(image(), path)
    path.write_text(path.read_text().replace("sizes: 5 6 7", "sizes: 30000 30000 30000"))
    assert "30000 x 30000 x 30000" in refused(path)


def test_more_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prod9.runtime.memory_limits.available_memory", lambda: 1000)
    sitk.WriteImage(image(), tmp_path / "case.mha")
    write_dicom(tmp_path / "scan", image())
    for path in (tmp_path / "case.mha", tmp_path / "scan"):
        assert "memory" in refused(path)


@pytest.mark.parametrize("gone", [(1,), (3,), (2, 3)])
def test_missing_slices(tmp_path: Path, gone: tuple[int, ...]) -> None:
    write_dicom(tmp_path / "scan", image(), leave_out=gone)
    refused(tmp_path / "scan")


def test_slices_that_make_no_volume(tmp_path: Path) -> None:
    write_dicom(tmp_path / "two", image((5, 6, 2)))
    refused(tmp_path / "two")
    write_dicom(tmp_path / "one", image((5, 6, 1)))
    refused(tmp_path / "one")
    write_dicom(tmp_path / "twice", image())
    for path in [*(tmp_path / "twice").iterdir()]:
        path.with_name(f"copy-{path.name}").write_bytes(path.read_bytes())
    refused(tmp_path / "twice")
    write_dicom(tmp_path / "place", image(), tags={"0020|0032": "1\\2\\3"})
    refused(tmp_path / "place")
    uid = "1.2.826.0.1.3680043.2.1125.1"
    write_dicom(tmp_path / "sizes", image(), uid, leave_out=(0,))
    write_dicom(tmp_path / "other", image((6, 6, 7)), uid, leave_out=(1, 2, 3, 4, 5, 6))
    for path in (tmp_path / "other").iterdir():
        path.rename(tmp_path / "sizes" / path.name)
    refused(tmp_path / "sizes")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty")


def test_several_frames_in_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "scan"
    folder.mkdir()
    for name in ("a", "b", "c"):  # each is a series of one file
        with same_locale():
            sitk.WriteImage(image(dtype=np.uint16), folder / f"{name}.dcm")
    assert "dcm2niix" in refused(folder, find_volumes(folder)[0].part)


@pytest.mark.parametrize("tag", [b"\x20\x00\x32\x00", b"\x28\x00\x30\x00"])
def test_a_slice_without_position_or_spacing(tmp_path: Path, tag: bytes) -> None:
    path = write_dicom(tmp_path / "scan", image())[2]
    content = path.read_bytes()
    assert content.count(tag) == 1
    path.write_bytes(content.replace(tag, tag[:2] + b"\x33\x00"))
    refused(tmp_path / "scan", named=path)


def test_slices_of_several_directions(tmp_path: Path) -> None:
    turned = image()
    turned.SetDirection(np.eye(3).ravel())
    write_dicom(tmp_path / "scan", image(), leave_out=(3,))
    (path,) = write_dicom(tmp_path / "scan", turned, leave_out=(0, 1, 2, 4, 5, 6))
    refused(tmp_path / "scan", named=path)


@pytest.mark.parametrize("bad", ["nan", "inf", "1e400"])
def test_geometry_that_is_not_finite(tmp_path: Path, bad: str) -> None:
    write_dicom(tmp_path / "scan", image(), tags={"0020|0032": f"{bad}\\0\\0"})
    refused(tmp_path / "scan")
    path = tmp_path / "case.nhdr"
    sitk.WriteImage(image(), path)
    path.write_text(re.sub("space origin: .*", f"space origin: ({bad},0,0)", path.read_text()))
    refused(path)


def test_a_tilted_gantry(tmp_path: Path) -> None:
    write_dicom(tmp_path / "scan", image(), tilt=0.002)
    read_volume(tmp_path / "scan")
    write_dicom(tmp_path / "tilted", image(), tilt=0.5)
    assert "tilted" in refused(tmp_path / "tilted")


@pytest.mark.parametrize("keep", [-50, 500, 10])
@pytest.mark.parametrize("index", [0, 3, -1])
def test_a_damaged_slice_is_named(tmp_path: Path, keep: int, index: int) -> None:
    path = write_dicom(tmp_path / "scan", image())[index]
    path.write_bytes(path.read_bytes()[:keep])
    refused(tmp_path / "scan", named=path)


def test_a_slice_alone(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "scan", image())[0]
    assert "folder" in refused(path)


def test_compressed_slices(tmp_path: Path) -> None:
    volume = image((40, 36, 4))
    path = write_dicom(tmp_path / "scan", volume, packed=True)[2]
    known = b"1.2.840.10008.1.2.4."
    same_as_nifti(volume, tmp_path / "scan", tmp_path)
    content = path.read_bytes()
    start = content.index(known)
    path.write_bytes(content[:start] + known + b"20" + content[start + len(known) + 2 :])
    assert "decompress it first" in refused(tmp_path / "scan", named=path)


def test_without_simpleitk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sitk.WriteImage(image(), tmp_path / "case.nrrd")
    write_dicom(tmp_path / "scan", image())
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    assert "prod9[itk]" in refused(tmp_path / "case.nrrd")
    assert "prod9[itk]" in refused(tmp_path / "scan", named=tmp_path / "scan")


def test_simpleitk_is_imported_only_when_a_file_needs_it() -> None:
    code = f"import sys, {itk_module.__name__}; assert 'SimpleITK' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_real_scan(tmp_path: Path) -> None:
    folder = os.environ.get("PROD9_REAL_DATA") or Path(__file__).parents[5] / "shared" / "data"
    path = Path(folder) / "Task04_Hippocampus" / "imagesTr" / "hippocampus_001.nii.gz"
    if not path.is_file():
        pytest.skip("needs the Decathlon's hippocampus data set below PROD9_REAL_DATA")
    volume, reference = sitk.Cast(sitk.ReadImage(path), sitk.sitkInt16), read_volume(path)
    for suffix in SUFFIXES:
        sitk.WriteImage(volume, tmp_path / f"case{suffix}")
    write_dicom(tmp_path / "scan", volume)
    for copy in (*(tmp_path / f"case{suffix}" for suffix in SUFFIXES), tmp_path / "scan"):
        stored = read_volume(copy)
        assert np.array_equal(stored.array, reference.array)
        assert np.allclose(stored.affine, reference.affine, atol=1e-4)
