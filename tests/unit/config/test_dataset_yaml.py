from pathlib import Path

import pytest

from prod9.config.dataset import (
    ChannelEntry,
    DatasetDescription,
    ScanEntry,
    read_description,
    split_part,
    write_description,
)
from prod9.errors import Prod9Error


def of(**changes: object) -> DatasetDescription:
    scans = {
        "001": ScanEntry(subject="001", files={"T1": "a b.nii.gz[0]", "seg": "s.nii"}),
        "no": ScanEntry(subject="no", files={"T1": "${x}.nii.gz", "seg": "t.nii"}),
    }
    values = {
        "name": "mine",
        "root": Path("data"),
        "layout": "flat",
        "channels": {"T1": ChannelEntry(), "seg": ChannelEntry(kind="labels", values=(0, 1))},
        "scans": scans,
    }
    return DatasetDescription.model_validate(values | changes)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    description = of()
    write_description(tmp_path / "dataset.yaml", description)
    found = read_description(tmp_path / "dataset.yaml")
    assert found.root == Path("data").resolve()
    assert found.model_copy(update={"root": description.root}) == description
    assert found.intensity_channels == ("T1",)


def test_a_relative_root_is_relative_to_the_file(tmp_path: Path) -> None:
    text = "name: a\nroot: scans\nlayout: flat\nchannels: {T1: {}}\n"
    (tmp_path / "dataset.yaml").write_text(text)
    assert read_description(tmp_path / "dataset.yaml").root == tmp_path / "scans"


@pytest.mark.parametrize(
    ("line", "about"),
    [
        ("chanels: {}", "channels"),
        ("channels: {T1: {scaling: window}}", "window"),
        ("channels: {T1: {kind: labels, scaling: stored}}", "labels"),
        ("scans: {a: {subject: a, files: {}}}", "T1"),
        ("scans: {a: {subject: a, files: {T1: x, T2: y}}}", "T2"),
        ("scans: {a: {subject: a, files: {T1: x}, class_name: ill}}", "ill"),
        ("scans: {a: {subject: a, files: {T1: x}, split: training}}", "train"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, line: str, about: str) -> None:
    first = "name: a\nroot: .\nlayout: flat\n"
    lines = [line] if line.startswith("channels") else ["channels: {T1: {}}", line]
    (tmp_path / "dataset.yaml").write_text(first + "\n".join(lines) + "\n")
    with pytest.raises(Prod9Error) as caught:
        read_description(tmp_path / "dataset.yaml")
    assert about in str(caught.value)
    assert f"dataset.yaml:{3 + len(lines)}: " in str(caught.value)


def test_a_file_may_have_a_part() -> None:
    assert split_part("a.nii.gz[3]") == ("a.nii.gz", "3")
    assert split_part("dicom/1[1.2.840.1]") == ("dicom/1", "1.2.840.1")
    assert split_part("scan[1].nii.gz") == ("scan[1].nii.gz", "")
