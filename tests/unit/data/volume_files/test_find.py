import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("SimpleITK")
import SimpleITK as sitk
from itk_files import image, write_dicom

from prod9.data.volume_files.find import VolumeFile, find_volumes
from prod9.data.volume_files.read import read_volume
from prod9.errors import Prod9Error

UID = "1.2.826.0.1.3680043.2.1125"


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0")


def names(root: Path) -> list[str]:
    return [found.path.relative_to(root).as_posix() for found in find_volumes(root)]


def test_files_of_every_format_at_any_depth(tmp_path: Path) -> None:
    volumes = ["a.nii", "b/c.nii.gz", "b/d.npy", "b/e/f.NPZ", "g.nrrd", "h.nhdr", "i.mha", "j.mhd"]
    touch(*(tmp_path / name for name in volumes))
    others = ["j.raw", "h.raw.gz", "j.zraw", "a.json", "k.hdr", "k.img", "README", "x.tokens.npz"]
    touch(*(tmp_path / name for name in others))
    assert names(tmp_path) == sorted(volumes)
    stems = [found.stem for found in find_volumes(tmp_path)]
    assert sorted(stems) == ["a", "c", "d", "f", "g", "h", "i", "j"]
    assert {found.part for found in find_volumes(tmp_path)} == {""}


def test_what_archives_leave_and_hidden_files(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("._a.nii", ".b.nii", "__MACOSX/c.nii", ".d/e.nii")))
    assert find_volumes(tmp_path) == ()


def test_links_in_a_circle(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "b.nii")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path) == ["a/b.nii"]


def test_a_missing_and_an_unreadable_folder(tmp_path: Path) -> None:
    with pytest.raises(Prod9Error, match="none"):
        find_volumes(tmp_path / "none")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(Prod9Error, match="loop"):
        find_volumes(tmp_path / "loop")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_without_the_right_to_read(tmp_path: Path) -> None:
    touch(tmp_path / "closed" / "a.nii")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(Prod9Error, match="closed"):
        find_volumes(tmp_path)
    (tmp_path / "closed").chmod(0o700)


@pytest.mark.parametrize("name", ["{}.dcm", "{}.IMA", "{}", "1.2.840.{}"])
def test_a_series_is_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "patient" / "T1"
    for index, path in enumerate(write_dicom(folder, image())):
        path.rename(folder / name.format(index))
    touch(folder / "._0.dcm", folder / "notes.txt", folder / "LICENSE")
    assert find_volumes(tmp_path) == (VolumeFile(folder),)
    assert find_volumes(folder) == (VolumeFile(folder),)
    assert find_volumes(folder)[0].stem == "T1"
    assert read_volume(folder).array.shape == (5, 6, 7)


def test_several_series_of_a_folder_and_other_volumes_beside_them(tmp_path: Path) -> None:
    write_dicom(tmp_path / "s", image(), f"{UID}.3", {"0008|103e": "T1 ax/3D "})
    write_dicom(tmp_path / "s", image((4, 5, 6)), f"{UID}.4")
    write_dicom(tmp_path / "s", image((4, 5, 7)), f"{UID}.5", {"0020|0011": "4"})
    touch(tmp_path / "s" / "mask.nii")
    found = find_volumes(tmp_path)
    assert [each.part for each in found] == [f"{UID}.3", f"{UID}.4", f"{UID}.5", ""]
    stems = {each.part: each.stem for each in found}
    assert stems == {
        "": "mask",
        f"{UID}.3": "s-3-T1_ax_3D",
        f"{UID}.4": "s-4",
        f"{UID}.5": "s-4-5",
    }
    shapes = {each.part: read_volume(each.path, each.part).array.shape for each in found[:3]}
    assert shapes[f"{UID}.3"] == (5, 6, 7)
    assert shapes[f"{UID}.4"] == (4, 5, 6)


def test_dicom_files_without_an_image(tmp_path: Path) -> None:
    (path, *_) = write_dicom(tmp_path / "scan", image())
    content, scan = path.read_bytes(), b"1.2.840.10008.5.1.4.1.1.2\0"
    assert content.count(scan) == 2
    report = content.replace(scan, b"1.2.840.10008.5.1.4.1.1.88")
    for name in ("report.dcm", "DICOMDIR"):
        (tmp_path / "scan" / name).write_bytes(report)
    assert find_volumes(tmp_path) == (VolumeFile(tmp_path / "scan"),)
    assert read_volume(tmp_path / "scan").array.shape == (5, 6, 7)


def test_a_damaged_series_is_found_and_refused_when_read(tmp_path: Path) -> None:
    for path in write_dicom(tmp_path / "scan", image()):
        path.write_bytes(path.read_bytes()[:300])
    (found,) = find_volumes(tmp_path)
    with pytest.raises(Prod9Error):
        read_volume(found.path, found.part)


def test_all_that_is_found_is_read(tmp_path: Path) -> None:
    volume = image()
    for suffix in (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"):
        sitk.WriteImage(volume, tmp_path / f"case_{suffix[1:]}{suffix}")
    write_dicom(tmp_path / "scan", volume)
    reference = nib.load(tmp_path / "case_nii.nii")
    found = find_volumes(tmp_path)
    assert len(found) == 7
    for each in found:
        stored = read_volume(each.path, each.part)
        assert np.array_equal(stored.array, np.asarray(reference.dataobj))
        assert np.allclose(stored.affine, reference.affine, atol=1e-5)
