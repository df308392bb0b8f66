"""The same volumes, whatever the layout."""

import os
from pathlib import Path

import numpy as np
import pytest
from layout_folders import MAKERS, SUBJECTS, bids, subjects, table, volume, write

from prod9.config.dataset import read_description, write_description
from prod9.data.folder.read_part import read_part
from prod9.data.folder.understand import understand

REAL = Path(os.environ.get("PROD9_REAL_DATA", Path(__file__).parents[5] / "shared" / "data"))
# What the layouts call the drawn channels.
DRAWN = {"T1": "t1", "T1w": "t1", "image": "t1", "T2": "t2", "T2w": "t2", "label": "seg"}


@pytest.mark.parametrize("layout", MAKERS)
def test_the_same_volumes_and_subjects_in_every_layout(layout: str, tmp_path: Path) -> None:
    MAKERS[layout](tmp_path)
    description, problems = understand(tmp_path)
    assert problems == ()
    assert description.layout.startswith(layout.split(", ")[0])
    expected = ("BraTS-0", "BraTS-1", "BraTS-2") if layout == "BraTS" else SUBJECTS
    assert tuple(description.scans) == expected
    assert tuple(scan.subject for scan in description.scans.values()) == expected
    for number, scan in enumerate(description.scans.values()):
        for channel, file in scan.files.items():
            drawn = volume(number, DRAWN.get(channel, channel.lower()))
            np.testing.assert_array_equal(read_part(tmp_path, file).array, drawn)
            labels = description.channels[channel].kind == "labels"
            assert labels == (channel in ("seg", "label"))
    for name, entry in description.channels.items():
        assert entry.kind == "intensity" or name == list(description.channels)[-1]


@pytest.mark.parametrize("layout", MAKERS)
def test_a_description_is_read_as_it_was_written(layout: str, tmp_path: Path) -> None:
    MAKERS[layout](tmp_path)
    description, _ = understand(tmp_path)
    write_description(tmp_path / "dataset.yaml", description)
    again, problems = understand(tmp_path)  # the file in the folder counts
    assert again == description.model_copy(update={"root": tmp_path})
    assert again == read_description(tmp_path / "dataset.yaml")
    assert problems == ()


def test_what_the_layouts_know_besides(tmp_path: Path) -> None:
    for name in ("BIDS", "table list.csv", "Medical Segmentation Decathlon", "data list list.json"):
        MAKERS[name](tmp_path / name)
    found = {path.name: understand(path)[0] for path in tmp_path.iterdir()}
    scans = found["BIDS"].scans.values()
    assert [scan.covariates for scan in scans] == [
        {"age": 30.0, "sex": "F"},
        {"age": 31.0, "sex": None},
        {"age": 32.0, "sex": None},
    ]
    assert found["BIDS"].layout == "BIDS; only anat is read, not derivatives, func"
    assert found["BIDS"].licence == "CC0"
    assert found["table list.csv"].scans["sub-03"].covariates == {"age": 32.0}
    decathlon = found["Medical Segmentation Decathlon"]
    assert (decathlon.name, decathlon.licence) == ("Drawn", "CC0")
    assert decathlon.layout.endswith("1 test images are left out, as they have no label")
    assert decathlon.scans["sub-01"].files["t2"] == "imagesTr/sub-01.nii.gz[1]"
    splits = [scan.split for scan in found["data list list.json"].scans.values()]
    assert splits == ["val", "train", "train"]


def test_classes_and_splits_by_folders(tmp_path: Path) -> None:
    for number, (split, kind) in enumerate(
        (split, kind) for split in ("train", "test") for kind in ("ill", "well")
    ):
        write(tmp_path / "a" / split / kind / f"p{number}.nii.gz", volume(number))
        write(tmp_path / "b" / kind / f"p{number}" / "t1.nii.gz", volume(number))
        write(tmp_path / "b" / kind / f"p{number}" / "seg.nii.gz", volume(number, "seg"))
    description, problems = understand(tmp_path / "a")
    assert problems == ()
    assert description.classes == ("ill", "well")
    found = [(name, scan.class_name, scan.split) for name, scan in description.scans.items()]
    assert found == [
        ("p0", "ill", "train"),
        ("p1", "well", "train"),
        ("p2", "ill", "test"),
        ("p3", "well", "test"),
    ]
    description, problems = understand(tmp_path / "b")
    assert problems == ()
    assert [scan.class_name for scan in description.scans.values()] == ["ill", "well"] * 2
    assert tuple(description.channels) == ("t1", "seg")


def test_sessions_are_scans_of_one_subject(tmp_path: Path) -> None:
    for number, (subject, session) in enumerate(
        (subject, session) for subject in ("sub-01", "sub-02") for session in ("ses-1", "ses-2")
    ):
        folder = tmp_path / "bids" / subject / session / "anat"
        write(folder / f"{subject}_{session}_T1w.nii.gz", volume(number))
        write(tmp_path / "plain" / subject / session / "t1.nii.gz", volume(number))
    for root in tmp_path.iterdir():
        description, problems = understand(root)
        assert problems == ()
        found = [(name, scan.subject) for name, scan in description.scans.items()]
        assert found == [(f"{s}_{t}", s) for s in ("sub-01", "sub-02") for t in ("ses-1", "ses-2")]
        assert description.classes == ()


def test_files_that_describe_a_folder(tmp_path: Path) -> None:
    table(tmp_path)
    (tmp_path / "other.csv").write_text("a\n1\n")
    by_file, problems = understand(tmp_path / "list.csv")
    assert problems == ()
    assert tuple(by_file.scans) == SUBJECTS
    subjects(tmp_path / "plain")
    assert tuple(understand(tmp_path / "plain")[0].channels) == ("t1", "t2", "seg")


def test_a_class_of_each_scan_in_a_table(tmp_path: Path) -> None:
    table(tmp_path)
    path = tmp_path / "list.csv"
    lines = path.read_text().splitlines()
    added = [f"{line};{'ill' if 'sub-01' in line else 'well'};train" for line in lines[1:]]
    text = "\n".join([f"{lines[0]};class;split", *added])
    path.write_text(text.replace(",", ";"))
    description, problems = understand(path)
    assert problems == ()
    assert description.classes == ("ill", "well")
    assert {scan.split for scan in description.scans.values()} == {"train"}


def test_nothing_is_written_into_the_folder(tmp_path: Path) -> None:
    bids(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    understand(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.skipif(not (REAL / "Task04_Hippocampus").is_dir(), reason="no real data there")
def test_the_real_hippocampus() -> None:
    description, problems = understand(REAL / "Task04_Hippocampus")
    assert problems == ()
    assert len({scan.subject for scan in description.scans.values()}) == 260
    assert {name: each.kind for name, each in description.channels.items()} == {
        "MRI": "intensity",
        "label": "labels",
    }
    assert description.licence == "CC-BY-SA 4.0"
