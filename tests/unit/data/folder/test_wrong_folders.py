"""Each wrong folder gets one sentence that names the case and the file, never a traceback."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import layout_folders as good
import nibabel as nib
import numpy as np
import pytest
from layout_folders import SHAPE, volume, write

from prod9.config.dataset import write_description
from prod9.data.folder.inspection import inspect_folder
from prod9.data.folder.understand import understand
from prod9.errors import Prod9Error

Damage = Callable[[Path], Path | None]
WRONG: dict[str, tuple[Damage, tuple[str, ...]]] = {}


def wrong(*said: str) -> Callable[[Damage], Damage]:
    """Add a wrong folder, and what its sentence must name."""

    def add(damage: Damage) -> Damage:
        WRONG[damage.__name__] = (damage, said)
        return damage

    return add


def sentences(path: Path) -> list[str]:
    try:
        return [*inspect_folder(path).problems]
    except Prod9Error as error:
        return [str(error)]


def replace(
    root: Path, array: np.ndarray, affine: np.ndarray = good.AFFINE, file: str = "t1"
) -> None:
    good.subjects(root)
    write(root / "sub-02" / f"{file}.nii.gz", array, affine)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "scans"
    root.mkdir()
    return root


@wrong("sub-01", "site-a/sub-01/seg.nii.gz", "site-b/sub-01/seg.nii.gz", "more than once")
def two_subjects_with_one_name(root: Path) -> None:
    for site in ("site-a", "site-b"):
        good.subjects(root / site)
    for subject in ("sub-02", "sub-03"):
        (root / "site-b" / subject).rename(root / "site-b" / f"{subject}b")


@wrong("case sub-02", "no t2", "sub-02/")
def missing_channel(root: Path) -> None:
    good.subjects(root)
    (root / "sub-02/t2.nii.gz").unlink()


@wrong("channel pd", "sub-02", "sub-02/pd.nii.gz", "1 of 3")
def channel_that_most_lack(root: Path) -> None:
    replace(root, volume(1), file="pd")


@wrong("case sub-02", "t1.nii.gz", "t2.nii.gz", "two grids", "corner")
def grids_that_differ(root: Path) -> None:
    replace(root, volume(1), np.diag([1.0, 1, 2.5, 1]), "t2")


@wrong("case sub-02", "seg.nii.gz", "9 x 8 x 7 and 9 x 8 x 6")
def labels_of_another_shape(root: Path) -> None:
    replace(root, volume(1, "seg")[..., :6], file="seg")


@wrong("case sub-02", "seg.nii.gz", "fractions")
def label_map_with_fractions(root: Path) -> None:
    replace(root, volume(1, "seg").astype(np.float32) * 0.5, file="seg")


@wrong("case sub-02", "t1.nii.gz", "single slice")
def single_slice(root: Path) -> None:
    replace(root, volume(1)[..., :1])


@wrong("case sub-02", "t1.nii.gz", "9 x 8", "three axes")
def picture_of_two_axes(root: Path) -> None:
    replace(root, volume(1)[..., 0])


@wrong("case sub-02", "bold.nii.gz", "9 x 8 x 7 x 5")
def series_of_volumes(root: Path) -> None:
    for subject in good.SUBJECTS:
        write(root / subject / "bold.nii.gz", volume(0))
    write(root / "sub-02/bold.nii.gz", np.stack([volume(1)] * 5, axis=-1))


@wrong("case sub-02", "image.npy", "colour")
def colour_screenshot(root: Path) -> None:
    for number, subject in enumerate(good.SUBJECTS):
        write(root / subject / "image.npy", volume(number))
    write(root / "sub-02/image.npy", np.full((40, 50, 3), range(3), np.uint8))


@wrong("case sub-02", "t1.nii.gz", "real numbers")
def colour_nifti(root: Path) -> None:
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    replace(root, rgb)


@wrong("case sub-02", "t1.nii.gz", "cannot be read")
def truncated_gzip(root: Path) -> None:
    good.subjects(root)
    path = root / "sub-02/t1.nii.gz"
    path.write_bytes(path.read_bytes()[:-60])


@wrong("case sub-02", "t1.nii.gz", "cannot be read")
def text_named_nifti(root: Path) -> None:
    good.subjects(root)
    (root / "sub-02/t1.nii.gz").write_text("a page that says: please log in\n")


@wrong("case sub-02", "t1.nii.gz", "cannot be read")
def empty_file(root: Path) -> None:
    good.subjects(root)
    (root / "sub-02/t1.nii.gz").write_bytes(b"")


@wrong("channel t1", "sub-02", "sub-02/t1.nii.gz", "mixes CT")
def mixed_ct_and_mr(root: Path) -> None:
    replace(root, volume(1) * 3 - 1024)


@wrong("case sub-02", "t1.nii.gz", "1000 x 1000 x 2000 mm", "micrometres")
def units_in_micrometres(root: Path) -> None:
    replace(root, volume(1), np.diag([1000.0, 1000, 2000, 1]))


@wrong("case sub-02", "t1.nii.gz", "all its voxels are 0")
def all_zero(root: Path) -> None:
    replace(root, np.zeros(SHAPE, np.int16))


@wrong("case sub-02", "t1.nii.gz", "all its voxels are 7")
def constant(root: Path) -> None:
    replace(root, np.full(SHAPE, 7, np.int16))


@wrong("case sub-02", "t1.nii.gz", "1 of 504 voxels that are NaN")
def not_a_number(root: Path) -> None:
    array = volume(1).astype(np.float32)
    array[1, 2, 3] = np.nan
    replace(root, array)


@wrong("case sub-02", "t1.nii", "span no volume")
def singular_affine(root: Path) -> None:
    good.subjects(root)
    path = root / "sub-02/t1.nii"
    (root / "sub-02/t1.nii.gz").unlink()
    nib.Nifti1Image(volume(1), good.AFFINE).to_filename(path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<2h", content, 252, 0, 1)  # the sform alone counts
    struct.pack_into("<12f", content, 280, *[1.0, 1, 0, 0] * 3)
    path.write_bytes(content)


@wrong("only one subject", "sub-01", "t1.nii.gz")
def one_subject_only(root: Path) -> None:
    good.subjects(root)
    for subject in ("sub-02", "sub-03"):
        shutil.rmtree(root / subject)


def edit(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@wrong("case sub-02", r"scans\1t2.nii.gz", "list.csv, line 6", "backslashes")
def windows_paths_in_a_table(root: Path) -> Path:
    good.table(root)
    return edit(root / "list.csv", "scans/1t2", r"scans\1t2")


@wrong("list.csv", "no column channel")
def table_without_a_column(root: Path) -> Path:
    good.table(root)
    return edit(root / "list.csv", "subject,channel", "subject,modality")


@wrong("case sub-02", "scans/none.nii.gz", "list.csv, line 6")
def table_with_a_missing_file(root: Path) -> None:
    good.table(root)
    edit(root / "list.csv", "scans/1t2.nii.gz", "scans/none.nii.gz")


@wrong("case sub-02", "scans/1t1.nii.gz", "no class")
def table_with_a_missing_class(root: Path) -> None:
    good.table(root)
    edit(root / "list.csv", "age", "class")
    edit(root / "list.csv", ",31", ",")


@wrong("case sub-02", "two values of age, 31.0 and 99.0", "list.csv, line 6")
def table_that_contradicts_itself(root: Path) -> None:
    good.table(root)
    edit(root / "list.csv", "1t2.nii.gz,31", "1t2.nii.gz,99")


@wrong("case sub-02", "split trian", "list.csv, line 5")
def table_with_an_unknown_split(root: Path) -> None:
    good.table(root)
    edit(root / "list.csv", "age", "split")
    for age, split in ((30, "train"), (31, "trian"), (32, "val")):
        edit(root / "list.csv", f",{age}", f",{split}")


@wrong("list.csv, line 6", "5 cells for 4 columns")
def table_with_too_many_cells(root: Path) -> None:
    good.table(root)
    edit(root / "list.csv", "1t2.nii.gz,31", "1t2.nii.gz,31,5")


@wrong("case sub-02", "t1.nii.gz", "Permission")
def file_that_may_not_be_read(root: Path) -> None:
    good.subjects(root)
    (root / "sub-02/t1.nii.gz").chmod(0)


@wrong("scans is laid out in no known way", "holds nothing")
def empty_folder(root: Path) -> None:
    pass


@wrong("unpack", "brain.zip first")
def folder_of_archives(root: Path) -> None:
    (root / "brain.zip").write_bytes(b"PK")
    (root / "readme.txt").write_text("unpack")


@wrong("no known way", "1 .txt")
def folder_of_text(root: Path) -> None:
    (root / "readme.txt").write_text("nothing")


@wrong("atlas.nii.gz", "beside")
def volume_beside_the_subjects(root: Path) -> None:
    good.subjects(root)
    write(root / "atlas.nii.gz", volume(5))


@wrong("dataset.json", "cannot be read")
def damaged_dataset_json(root: Path) -> None:
    good.decathlon(root)
    path = root / "dataset.json"
    path.write_text(path.read_text()[:50])


@wrong("case sub-02", "imagesTr/sub-02.nii.gz", "training[1]")
def dataset_json_with_a_missing_file(root: Path) -> None:
    good.decathlon(root)
    (root / "imagesTr/sub-02.nii.gz").unlink()


@wrong("case sub-02", "no label")
def nnunet_without_a_label(root: Path) -> None:
    good.nnunet(root)
    (root / "labelsTr/sub-02.nii.gz").unlink()


@wrong("dataset.json", "channel_names", "does not number the channels")
def nnunet_with_channels_that_skip(root: Path) -> None:
    good.nnunet(root)
    edit(root / "dataset.json", '"1"', '"2"')


@wrong("case sub-02", "list.json, training[1]", "no fold")
def data_list_without_a_fold(root: Path) -> None:
    good.data_list(root)
    edit(root / "list.json", ', "fold": 1', "")


@wrong("list.json, training[1]", "no image file")
def data_list_without_a_file(root: Path) -> None:
    good.data_list(root)
    content = json.loads((root / "list.json").read_text())
    content["training"][1] = {"fold": 1}
    (root / "list.json").write_text(json.dumps(content))


@wrong("list.json", "no data list")
def file_of_another_kind(root: Path) -> Path:
    good.data_list(root)
    (root / "list.json").write_text("{}")
    return root / "list.json"


@wrong("case sub-02", "sub-02/anat/sub-02_T1w.nii.gz", "participants.tsv")
def participant_that_lacks(root: Path) -> None:
    good.bids(root)
    edit(root / "participants.tsv", "sub-02", "sub-2")


@wrong("participants.tsv", "no column participant_id")
def participants_without_names(root: Path) -> None:
    good.bids(root)
    edit(root / "participants.tsv", "participant_id", "name")


@wrong("case sub-02", "run-1_T1w.nii.gz", "run-2_T1w.nii.gz", "more than once")
def two_runs_of_one_channel(root: Path) -> None:
    good.bids(root)
    anat = root / "sub-02/anat"
    shutil.copy(anat / "sub-02_T1w.nii.gz", anat / "sub-02_run-2_T1w.nii.gz")
    (anat / "sub-02_T1w.nii.gz").rename(anat / "sub-02_run-1_T1w.nii.gz")


@wrong("case BraTS-1", "no T2", "BraTS-1")
def brats_without_a_modality(root: Path) -> None:
    good.brats(root)
    (root / "BraTS-1/BraTS-1_t2.nii.gz").unlink()


@wrong("none", "does not exist")
def folder_that_is_not_there(root: Path) -> Path:
    return root / "none"


@wrong("sub-01_t1.nii.gz is a file")
def file_instead_of_a_folder(root: Path) -> Path:
    good.flat(root)
    return root / "sub-01_t1.nii.gz"


def described(root: Path) -> Path:
    good.subjects(root)
    write_description(root / "dataset.yaml", understand(root)[0])
    return root / "dataset.yaml"


@wrong("dataset.yaml", "dataset.yaml:16: ", "channels.seg.knd", "did you mean kind?")
def description_with_a_typo(root: Path) -> None:
    path = described(root)
    path.write_text(path.read_text().replace("kind: labels", "knd: labels"))


@wrong("case sub-02", "sub-02/t2.nii.gz", "dataset.yaml")
def description_of_a_file_that_is_gone(root: Path) -> None:
    described(root)
    (root / "sub-02/t2.nii.gz").unlink()


@pytest.mark.parametrize("name", WRONG)
def test_one_sentence_names_case_and_file(name: str, folder: Path) -> None:
    if name == "file_that_may_not_be_read" and os.geteuid() == 0:
        pytest.skip("root may read every file")
    damage, parts = WRONG[name]
    said = sentences(damage(folder) or folder)
    assert len(said) == 1, said
    for part in parts:
        assert part in said[0]
    assert "\n" not in said[0]
    assert said[0].endswith((".", "?", ")"))
    assert "Traceback" not in said[0]


def test_every_broken_case_has_its_sentence(folder: Path) -> None:
    good.subjects(folder)
    for number in range(3, 9):
        write(folder / f"sub-{number}" / "t1.nii.gz", volume(number))
        write(folder / f"sub-{number}" / "t2.nii.gz", volume(number))
        write(folder / f"sub-{number}" / "seg.nii.gz", volume(number, "seg"))
    (folder / "sub-3/t1.nii.gz").unlink()
    (folder / "sub-4/t2.nii.gz").write_bytes(b"x")
    write(folder / "sub-5" / "t2.nii.gz", np.zeros(SHAPE, np.int16))
    found = inspect_folder(folder)
    assert (found.usable, found.broken) == (6, 3)
    assert [text.split()[1] for text in found.problems] == ["sub-3", "sub-4", "sub-5"]


def test_a_folder_of_broken_cases_alone(folder: Path) -> None:
    good.subjects(folder)
    for path in folder.rglob("t1.nii.gz"):
        path.write_bytes(b"x")
    found = inspect_folder(folder)
    assert (found.usable, found.broken) == (0, 3)
    assert len(found.problems) == 3
    assert dict(found.lines)["shapes"] == "none"
