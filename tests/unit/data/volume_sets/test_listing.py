import json
from pathlib import Path
from typing import Any

import pytest

from prod9.data.volume_sets.folder import list_volumes
from prod9.errors import Prod9Error


def folder_of(folder: Path, *files: str) -> Path:
    """Make empty files: listing looks at names alone."""
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def listed(folder: Path) -> list[tuple[str, str]]:
    return [(name, class_name) for name, (_, class_name) in list_volumes(folder).items()]


def refused(folder: Path) -> str:
    with pytest.raises(Prod9Error) as caught:
        list_volumes(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_csv(folder: Path, *lines: str) -> None:
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json(folder: Path, content: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(content), encoding="utf-8")


def test_volumes_come_by_name_and_everything_else_is_left_out(tmp_path: Path) -> None:
    volumes = ["b.nii", "a.nii.gz", "d.npy", "C.NII.GZ", "a.b.nii"]
    beside = ["montage.png", "a.tokens.npz", ".hidden.nii", ".cache/x.nii", "notes/readme.txt"]
    folder_of(tmp_path, *volumes, *beside)
    found = list_volumes(tmp_path)
    assert list(found) == ["C", "a", "a.b", "b", "d"]
    assert {class_name for _, class_name in found.values()} == {"all"}
    assert [path for path, _ in found.values()] == [
        tmp_path / name for name in ("C.NII.GZ", "a.nii.gz", "a.b.nii", "b.nii", "d.npy")
    ]


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    folder_of(tmp_path, "liver/1.nii", "heart/1.nii", "liver/2.npy", "empty/x.txt")
    assert listed(tmp_path) == [("heart/1", "heart"), ("liver/1", "liver"), ("liver/2", "liver")]


@pytest.mark.parametrize(
    "file", ["x.mgz", "x.nrrd", "x.DCM", "x.npz", "x.img", "liver/x.mha", "x.nii.bz2"]
)
def test_formats_that_are_not_read_are_not_skipped(tmp_path: Path, file: str) -> None:
    folder_of(tmp_path, "a.nii", file)
    message = refused(tmp_path)
    assert str(tmp_path / file) in message
    assert "convert it to .nii.gz" in message


def test_folders_that_cannot_be_meant(tmp_path: Path) -> None:
    message = refused(folder_of(tmp_path / "empty", "montage.png"))
    assert f"{tmp_path / 'empty'} holds no volume (.nii, .nii.gz, .npy)" in message
    message = refused(folder_of(tmp_path / "both", "a.nii", "liver/b.nii"))
    assert f"{tmp_path / 'both/a.nii'} lies beside or below the class sub-folders" in message
    message = refused(folder_of(tmp_path / "deep", "cohort/liver/b.nii"))
    assert f"{tmp_path / 'deep/cohort/liver/b.nii'} lies beside or below" in message
    message = refused(folder_of(tmp_path / "twice", "a.nii", "a.nii.gz"))
    assert str(tmp_path / "twice/a.nii") in message
    assert str(tmp_path / "twice/a.nii.gz") in message
    assert "same name but for the suffix" in message


def test_a_csv_gives_the_classes(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.nii", "b.nii", "sub/deep/c.nii")
    write_csv(
        tmp_path,
        "\ufeffclass, file ,age",
        "heart,b.nii,3",
        "",
        ' "Herz, links",./a.nii,',
        "liver,sub/deep/c.nii,7",
    )
    assert listed(tmp_path) == [("a", "Herz, links"), ("b", "heart"), ("sub/deep/c", "liver")]
    write_csv(tmp_path, "class,file", "Herz, links,./a.nii", "h,b.nii", "l,sub/deep/c.nii")
    assert "more columns than the first line" in refused(tmp_path)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["file;class", "a.nii;x"], "the columns file and class, separated by commas"),
        (["name,class", "a.nii,x"], "the columns file and class, separated by commas"),
        (["file,class", "a.nii,x", "gone.nii,x"], "has no volume 'gone.nii'"),
        (["file,class", "a.nii,x", "b.nii,"], "lacks a file or a class"),
        (["file,class", "a.nii,x", "b.nii"], "lacks a file or a class"),
        (["file,class", "a.nii,x", "./a.nii,x"], "'a.nii' is named twice"),
        (["file,class", "a.nii,x"], "has no entry for"),
        (["file,class", "../a.nii,x"], "has no volume '../a.nii'"),
        (["file,class", "/etc/a.nii,x"], "has no volume '/etc/a.nii'"),
        (["file,class", 'a.nii,"x'], "cannot be used"),
    ],
)
def test_a_csv_with_a_mistake(tmp_path: Path, lines: list[str], sentence: str) -> None:
    folder_of(tmp_path, "a.nii", "b.nii")
    write_csv(tmp_path, *lines)
    message = refused(tmp_path)
    assert sentence in message
    assert str(tmp_path) in message


def test_a_csv_that_is_no_text(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.nii")
    (tmp_path / "manifest.csv").write_bytes("file,class\na.nii,Körper".encode("latin-1"))
    assert "manifest.csv cannot be used (UnicodeDecodeError" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], 'it needs a list "samples"'),
        ({"samples": ["a.nii"]}, 'it needs a list "samples"'),
        ({"samples": [{"file": "a.nii"}]}, "cannot be used (KeyError: 'class')"),
        ({"samples": [{"file": "a.nii", "class": 3}]}, "lacks a file or a class"),
        ({"samples": [{"file": "b.nii", "class": "x"}]}, "has no volume 'b.nii'"),
        ({"samples": [{"file": "../a.nii", "class": "x"}]}, "has no volume '../a.nii'"),
        ({"samples": [{"file": "a.nii", "class": " "}]}, "lacks a file or a class"),
        ({"samples": []}, "it has no entry for"),
    ],
)
def test_a_json_with_a_mistake(tmp_path: Path, content: Any, sentence: str) -> None:
    folder_of(tmp_path, "a.nii")
    write_json(tmp_path, content)
    assert sentence in refused(tmp_path)


def test_a_json_that_is_none(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.nii")
    for text in ("{", "[" * 100_000):
        (tmp_path / "manifest.json").write_text(text)
        assert "manifest.json cannot be used" in refused(tmp_path)


def test_two_manifests_are_one_too_many(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.nii", "manifest.json", "manifest.csv")
    assert "has both manifest.json and manifest.csv; remove one." in refused(tmp_path)
