"""Any folder as a data set: grid, scaling, classes, splits."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from itk_files import write_dicom

from prod9.config.data import FolderDataConfig, FolderPreprocessingConfig
from prod9.config.dataset import read_description, write_description
from prod9.data.dataset import open_splits
from prod9.data.folder.dataset import described
from prod9.errors import Prod9Error
from prod9.label_codes import part_names

COUNT = 10


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, np.eye(4)).to_filename(path)


def volume(index: int, sides: tuple[int, int, int] = (14, 12, 10)) -> np.ndarray:
    random = np.random.default_rng(index)
    array = random.integers(1, 1000 * (index + 1), sides).astype(np.int16)
    array[0] = 0
    return array


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of five scans; the grids differ."""
    for index in range(COUNT):
        name = ("healthy", "ill")[index % 2]
        write(
            tmp_path / "scans" / name / f"s{index}.nii.gz", volume(index, (14, 12 + index % 3, 10))
        )
    return tmp_path / "scans"


def config(folder: Path, **changes: Any) -> FolderDataConfig:
    values = {
        "dataset_name": "folder",
        "path": folder,
        "split_file": folder.parent / "split.json",
        "cache_dir": folder.parent / "cache",
        "val_share": 0.2,
        "test_share": 0.2,
    }
    return FolderDataConfig.model_validate(values | changes)


def test_a_folder_becomes_a_data_set(folder: Path) -> None:
    splits = open_splits(config(folder))
    sets = [splits["train"], splits["val"], splits["test"]]
    assert [len(data) for data in sets] == [6, 2, 2]
    assert len({subject for data in sets for subject in data.subjects}) == COUNT
    data = splits["train"]
    assert data.class_names == ("healthy", "ill")
    assert data.shape == (16, 16, 8)  # the last axis is cropped
    for item, name in enumerate(data.names):
        index = int(name.rsplit("s", 1)[1])
        assert data.class_of(item) == index % 2
        raw = volume(index, (14, 12 + index % 3, 10)).astype(np.float64)
        low, high = np.percentile(raw[raw != 0], (0.1, 99.9))
        wanted = np.where(raw == 0, 0, ((raw - low) / (high - low)).clip(0, 1))
        missing = [side - own for side, own in zip(data.shape[:2], raw.shape[:2], strict=True)]
        pads = [(m // 2, m - m // 2) for m in missing]
        wanted = np.pad(wanted[:, :, 1:9], [*pads, (0, 0)], mode="edge")
        assert np.abs(data.whole(item, 0) - wanted).max() < 1e-3  # float16 in the cache
        assert np.array_equal(
            data.crop(item, 0, (3, 0, 2), (9, 4, 5)), data.whole(item, 0)[3:12, :4, 2:7]
        )


def test_what_a_user_corrects_counts(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    found = described(folder)
    name = found.intensity_channels[0]
    channel = found.channels[name].model_copy(
        update={"scaling": "window", "window": (100.0, 300.0)}
    )
    update = {"channels": {name: channel}, "shape": (8, 8, 8), "mirror": True}
    write_description(path, found.model_copy(update=update))
    data = open_splits(config(folder, path=path))["train"]
    assert data.shape == (8, 8, 8)
    assert data.flip_axes(0) == (0,)
    assert isinstance(data.preprocessing, FolderPreprocessingConfig)
    assert data.preprocessing.windows == {name: (100.0, 300.0)}
    index = int(data.names[0].rsplit("s", 1)[1])
    raw = volume(index, (14, 12 + index % 3, 10)).astype(np.float64)
    # Cropped around the middle.
    wanted = ((raw - 100) / 200).clip(0, 1)[
        tuple(slice(-(-(side - 8) // 2), -(-(side - 8) // 2) + 8) for side in raw.shape)
    ]
    assert np.abs(data.whole(0, 0) - wanted).max() < 1e-3


def test_the_split_of_the_data_is_taken(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    found = described(folder)
    where = dict(zip(found.scans, ["train"] * 6 + ["val", "test"] * 2, strict=True))
    scans = {n: each.model_copy(update={"split": where[n]}) for n, each in found.scans.items()}
    write_description(path, found.model_copy(update={"scans": scans}))
    splits = open_splits(config(folder, path=path))
    assert {*splits["test"].names} == {name for name, split in where.items() if split == "test"}
    assert not (folder.parent / "split.json").exists()


def test_covariates_are_those_of_the_training_split(tmp_path: Path) -> None:
    rows = ["subject,channel,file,split,age,sex"]
    for index in range(6):
        write(tmp_path / f"{index}.nii.gz", volume(index))
        split = ("train", "train", "train", "train", "val", "test")[index]
        age = "" if index == 0 else str(10 * index)
        rows.append(f"p{index},T1,{index}.nii.gz,{split},{age},{'FM'[index % 2]}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    data = open_splits(config(tmp_path / "table.csv", cache_dir=tmp_path.parent / "c"))["train"]
    age, sex = data.covariates
    assert (age.name, age.mean) == ("age", pytest.approx(20.0))
    assert sex.categories == ("F", "M")
    values = {name: data.covariates_of(item) for item, name in enumerate(data.subjects)}
    assert values["p0"] == (None, 0.0)
    assert values["p3"] == (30.0, 1.0)


@pytest.mark.parametrize(
    "ending",
    [".nrrd", "/", *(pytest.param(e, marks=pytest.mark.slow) for e in (".mha", ".mhd", ".npz"))],
)
def test_every_format_gives_the_same_data_set(folder: Path, tmp_path: Path, ending: str) -> None:
    """The same scans, written by SimpleITK; a folder with a ``/`` is a DICOM series."""
    sitk = pytest.importorskip("SimpleITK")
    other = tmp_path / "other"
    for path in sorted(folder.rglob("*.nii.gz")):
        target = other / path.parent.name / path.name.removesuffix(".nii.gz")
        target.parent.mkdir(parents=True, exist_ok=True)
        if ending == "/":
            number = path.name.removeprefix("s").removesuffix(".nii.gz")
            write_dicom(target, sitk.ReadImage(path), uid=f"1.2.826.0.1.3680043.2.1125.{number}")
        elif ending == ".npz":
            np.savez(f"{target}.npz", volume=np.asarray(nib.load(path).dataobj))
        else:
            sitk.WriteImage(sitk.ReadImage(path), f"{target}{ending}")
    wanted = open_splits(config(folder))["train"]
    found = open_splits(config(other, cache_dir=tmp_path / "c2"))["train"]
    assert found.names == wanted.names
    assert found.shape == wanted.shape
    for item in range(len(wanted)):
        assert found.class_of(item) == wanted.class_of(item)
        assert np.array_equal(found.whole(item, 0), wanted.whole(item, 0))


def test_a_broken_scan_is_named(folder: Path) -> None:
    broken = folder / "ill" / "s1.nii.gz"
    described_before = described(folder)
    path = folder.parent / "dataset.yaml"
    write_description(path, described_before)
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(Prod9Error) as caught:
        open_splits(config(folder, path=path))
    assert str(broken) in str(caught.value)
    splits = open_splits(config(folder, path=path, on_bad_case="skip"))
    assert sum(len(splits[split]) for split in ("train", "val", "test")) == COUNT - 1


def test_a_complete_description_reads_no_volume_twice(folder: Path) -> None:
    path = folder.parent / "dataset.yaml"
    write_description(path, described(folder))
    assert described(path) == read_description(path)


def labelled(folder: Path) -> Path:
    """Six subjects of an image and a label map, cut differently; return the description's path."""
    for index in range(6):
        image = volume(index, (14, 12, 10))
        labels = np.zeros(image.shape, np.uint8)
        labels[4:10, 3 : 7 + index % 2, 2:8] = 5
        labels[4:7, 3:6, 2:8] = 44
        write(folder / f"p{index}" / "T1.nii.gz", image)
        write(folder / f"p{index}" / "seg.nii.gz", labels)
    path = folder.parent / "labelled.yaml"
    found = described(folder).model_copy(update={"learn_labels": True, "shape": (16, 16, 8)})
    write_description(path, found)
    return path


def test_labels_are_learned_only_when_asked(tmp_path: Path) -> None:
    path = labelled(tmp_path / "scans")
    plain = open_splits(config(tmp_path / "scans"))["train"]
    assert [channel.name for channel in plain.channels] == ["T1"]
    data = open_splits(config(path, path=path))["train"]
    assert [channel.name for channel in data.channels] == ["T1", *part_names("seg")]
    assert data.image_channels == (0,)
    # An image is learned as often as all the parts of its label map.
    assert data.targets == [0, 0, 0, 0, 1, 2, 3, 4]
    assert np.array_equal(data.whole(0, 0), plain.whole(0, 0))
    for item, name in enumerate(data.names):
        index = int(name.rsplit("p", 1)[1][0])
        wanted = np.zeros((14, 12, 10))
        wanted[4:10, 3 : 7 + index % 2, 2:8] = 5
        wanted[4:7, 3:6, 2:8] = 44
        wanted = np.pad(wanted[:, :, 1:9], [(1, 1), (2, 2), (0, 0)])
        for channel in range(1, 5):
            assert np.array_equal(data.whole(item, channel), wanted)


def test_labels_on_another_spacing_are_those_of_the_nearest_voxel(tmp_path: Path) -> None:
    path = labelled(tmp_path / "scans")
    found = read_description(path)
    write_description(path, found.model_copy(update={"spacing_mm": (1.5, 0.8, 1.0)}))
    data = open_splits(config(path, path=path))["train"]
    assert {*np.unique(data.whole(0, 1))} == {0.0, 5.0, 44.0}


def write_labelled(folder: Path) -> Path:
    """Write scans with boxes of known sizes, 2 x 1 x 1 mm; return a description of all."""
    for index in range(COUNT):
        for name, array in (("T1", volume(index)), ("seg", np.zeros((14, 12, 10), np.uint8))):
            if name == "seg":
                array[2 : 4 + index, 3:6, 4:8] = 3
            path = folder / f"s{index}" / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.Nifti1Image(array, np.diag([2.0, 1.0, 1.0, 1.0])).to_filename(path)
    found = described(folder)
    update = {"learn_labels": True, "label_volumes": (3,), "shape": (14, 12, 10)}
    path = folder.parent / "dataset.yaml"
    write_description(path, found.model_copy(update=update))
    return path


def test_the_volume_of_a_label_is_a_covariate(tmp_path: Path) -> None:
    path = write_labelled(tmp_path / "scans")
    splits = open_splits(config(tmp_path / "scans", path=path))
    known = []
    for split in ("train", "val", "test"):
        data = splits[split]
        (covariate,) = data.covariates
        assert covariate.name == "volume:3"
        for item, name in enumerate(data.names):
            ml = (2 + int(name.removeprefix("s"))) * 3 * 4 * 2 / 1000
            assert data.covariates_of(item) == (pytest.approx(ml),)
            known += [ml] if split == "train" else []
    assert covariate.mean == pytest.approx(np.mean(known))
    assert covariate.std == pytest.approx(np.std(known))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label_volumes": (4,)}, r"label_volumes has 4.*0, 3"),
        ({"learn_labels": False}, "learn_labels: true"),
    ],
)
def test_volumes_of_labels_that_are_not_learned(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = write_labelled(tmp_path / "scans")
    write_description(path, read_description(path).model_copy(update=change))
    with pytest.raises(Prod9Error, match=said):
        open_splits(config(tmp_path / "scans", path=path))
