import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from prod9.data.brats.layouts import MODALITIES
from prod9.data.phantom import cohort as cohort_module
from prod9.data.phantom.case import draw_case
from prod9.data.phantom.cohort import Release, make_phantom
from prod9.errors import Prod9Error

SUFFIXES = {
    "2021": ("_t1", "_t1ce", "_t2", "_flair", "_seg"),
    "2023": ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"),
}


def cohort(folder: Path, release: Release = "2021", cases: int = 2, **others: Any) -> Path:
    options = {"seed": 5, "voxel_mm": 8.0} | others
    make_phantom(folder, cases=cases, release=release, **options)
    return folder


def listing(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stored(folder: Path, release: Release, index: int) -> list[np.ndarray]:
    """T1, T1ce, T2, FLAIR and labels in the meaning of 2023, the layout undone by hand."""
    if release == "msd":
        name = f"BRATS_{index + 1:03d}.nii.gz"
        image, labels = (
            np.asarray(nib.load(folder / part / name).dataobj) for part in ("imagesTr", "labelsTr")
        )
        meaning = np.array([0, 2, 1, 3])
        return [image[..., channel] for channel in (1, 2, 3, 0)] + [meaning[labels]]
    name = f"BraTS2021_{index:05d}" if release == "2021" else f"BraTS-GLI-{index:05d}-000"
    *images, labels = (
        np.asarray(nib.load(folder / name / f"{name}{suffix}.nii.gz").dataobj)
        for suffix in SUFFIXES[release]
    )
    return [*images, np.where(labels == 4, 3, labels)]


def test_the_layouts_are_exact_and_hold_the_same(tmp_path: Path) -> None:
    written: list[int] = []
    cohort(tmp_path / "2021", "2021", on_case=written.append)
    assert written == [0, 1]
    cohort(tmp_path / "2023", "2023")
    cohort(tmp_path / "msd", "msd")
    assert set(listing(tmp_path / "2021")) == {
        f"BraTS2021_0000{i}/BraTS2021_0000{i}_{part}.nii.gz"
        for i in range(2)
        for part in ("t1", "t1ce", "t2", "flair", "seg")
    }
    assert set(listing(tmp_path / "2023")) == {
        f"BraTS-GLI-0000{i}-000/BraTS-GLI-0000{i}-000-{part}.nii.gz"
        for i in range(2)
        for part in ("t1n", "t1c", "t2w", "t2f", "seg")
    }
    assert set(listing(tmp_path / "msd")) == {"dataset.json"} | {
        f"{part}/BRATS_00{i}.nii.gz" for i in (1, 2) for part in ("imagesTr", "labelsTr")
    }
    for index in range(2):
        case = draw_case(5, index, voxel_mm=8.0)
        expected = [*(case.images[name] for name in MODALITIES), case.segmentation]
        for release in ("2021", "2023", "msd"):
            for own, array in zip(
                stored(tmp_path / release, release, index), expected, strict=True
            ):
                assert np.array_equal(own, array)
    # Undoing a layout hides its label numbers: there they are.
    for release, name in {
        "2021": "BraTS2021_00000/BraTS2021_00000_seg.nii.gz",
        "2023": "BraTS-GLI-00000-000/BraTS-GLI-00000-000-seg.nii.gz",
        "msd": "labelsTr/BRATS_001.nii.gz",
    }.items():
        labels = np.unique(np.asarray(nib.load(tmp_path / release / name).dataobj))
        assert set(labels) == ({0, 1, 2, 4} if release == "2021" else {0, 1, 2, 3})


def test_headers(tmp_path: Path) -> None:
    cohort(tmp_path, "msd", cases=1)
    affine = draw_case(5, 0, voxel_mm=8.0).affine
    for part, shape, dtype in (
        ("imagesTr", (30, 30, 20, 4), np.int16),
        ("labelsTr", (30, 30, 20), np.uint8),
    ):
        image = nib.load(tmp_path / part / "BRATS_001.nii.gz")
        assert image.shape == shape
        assert image.get_data_dtype() == dtype
        for matrix, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
            assert code > 0
            assert np.allclose(matrix, affine)
        assert image.header.get_zooms()[:3] == (8, 8, 8)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert b"not a patient" in bytes(image.header["descrip"])


def test_the_decathlon_description(tmp_path: Path) -> None:
    cohort(tmp_path, "msd", cases=1)
    cohort(tmp_path, "msd", cases=2, overwrite=True)
    cohort(tmp_path, "msd", cases=1, overwrite=True)  # case 2 stays, and stays listed
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert content["name"] == "BRATS"
    assert content["modality"] == {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    assert content["labels"] == {
        "0": "background",
        "1": "edema",
        "2": "non-enhancing tumor",
        "3": "enhancing tumour",
    }
    assert content["numTraining"] == 2
    assert content["training"] == [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in ("BRATS_001", "BRATS_002")
    ]
    assert content["test"] == []


@pytest.mark.parametrize("release", ["2021", "msd"])
def test_the_seed_decides_every_byte_and_the_cores_none(
    two_threads: None, tmp_path: Path, release: Release
) -> None:
    one = listing(cohort(tmp_path / "one", release, voxel_mm=4.0))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    two = listing(cohort(tmp_path / "two", release, voxel_mm=4.0))
    other = listing(cohort(tmp_path / "other", release, voxel_mm=4.0, seed=6))
    assert one == two
    for name in one.keys() - {"dataset.json"}:
        assert one[name] != other[name]
        assert (
            one[name][:10] == b"\x1f\x8b\x08\x00" + bytes(4) + one[name][8:10]
        )  # no time, no name
    assert len(set(one.values())) == len(one)


def test_a_folder_with_something_in_it_needs_overwrite(tmp_path: Path) -> None:
    cohort(tmp_path / "empty" / "below", cases=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(Prod9Error, match=r"full is not empty; .* --overwrite"):
        cohort(tmp_path / "full")
    assert list(listing(tmp_path / "full")) == ["notes.txt"]


def test_overwriting_replaces_these_cases_alone(tmp_path: Path) -> None:
    before = listing(cohort(tmp_path, cases=3))
    (tmp_path / "notes.txt").write_text("mine")
    cohort(tmp_path, cases=2, seed=6, overwrite=True)
    after = listing(tmp_path)
    assert after.pop("notes.txt") == b"mine"
    assert after.keys() == before.keys()
    for name, content in after.items():
        assert (content == before[name]) == name.startswith("BraTS2021_00002")


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("2021", "BraTS2021_00001/BraTS2021_00001_t1.nii.gz"),
        ("2021", "BraTS2021_00001/notes.txt"),
        ("2021", "BraTS2021_00001"),
        ("2023", "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1n.nii.gz"),
        ("msd", "imagesTr/BRATS_002.nii.gz"),
        ("msd", "labelsTr/BRATS_002.nii.gz"),
        ("msd", "dataset.json"),
    ],
)
def test_patients_are_never_replaced(tmp_path: Path, release: Release, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = nib.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4)).to_bytes()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else b'{"name": "BRATS"}')
    before = listing(tmp_path)
    with pytest.raises(Prod9Error, match=f"{Path(name).name} is no phantom"):
        cohort(tmp_path, release, overwrite=True)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("release", ["2021", "msd"])
def test_what_fails_leaves_whole_cases_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: Release
) -> None:
    write, count = cohort_module._write_nifti, 0

    def fail(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
        nonlocal count
        count += 1
        if path.name.endswith(("00001_t2.nii.gz", "labelsTr/BRATS_002.nii.gz")) or count == 7:
            raise OSError(28, "No space left on device")
        write(path, array, affine)

    monkeypatch.setattr(cohort_module, "_write_nifti", fail)
    whole = listing(cohort(tmp_path / "whole", release, cases=1))
    count = 0 if release == "2021" else 4
    with pytest.raises(Prod9Error, match=r"cannot write .*No space left"):
        cohort(tmp_path / "broken", release)
    whole.pop("dataset.json", None)
    assert listing(tmp_path / "broken") == whole
    assert not [path for path in (tmp_path / "broken").iterdir() if path.name.startswith(".")]


def test_a_file_in_the_folder_s_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Prod9Error, match="cannot write"):
        cohort(tmp_path / "file")
