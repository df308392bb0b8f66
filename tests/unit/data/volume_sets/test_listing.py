import json
from pathlib import Path
from typing import Any

import pytest

from prod9.data.volume_sets.listing import list_volumes
from prod9.errors import Prod9Error


def folder_of(folder: Path, *files: str) -> Path:
    """Make empty files: listing looks at names alone."""
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def listed(folder: Path, manifest: Path | None = None) -> list[tuple[str, str]]:
    return [(volume.name, volume.class_name) for volume in list_volumes(folder, manifest)]


def refused(folder: Path, manifest: Path | None = None) -> str:
    with pytest.raises(Prod9Error) as caught:
        list_volumes(folder, manifest)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_csv(folder: Path, *lines: str, name: str = "manifest.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_json(folder: Path, content: Any) -> Path:
    path = folder / "manifest.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_volumes_come_by_name_and_everything_else_is_left_out(tmp_path: Path) -> None:
    volumes = ["b.nii", "a.nii.gz", "d.npy", "C.NII.GZ", "a.b.nii"]
    beside = ["montage.png", "a.tokens.npz", ".hidden.nii", ".cache/x.nii", "notes/readme.txt"]
    folder_of(tmp_path, *volumes, *beside)
    found = list_volumes(tmp_path)
    assert [volume.name for volume in found] == ["C", "a", "a.b", "b", "d"]
    assert {volume.class_name for volume in found} == {"all"}
    assert [volume.path for volume in found] == [
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
    assert "has volumes itself (a.nii) and in a sub-folder (liver/b.nii)" in message
    message = refused(folder_of(tmp_path / "deep", "cohort/liver/b.nii"))
    assert f"{tmp_path / 'deep/cohort/liver/b.nii'} lies deeper than a class sub-folder" in message
    message = refused(folder_of(tmp_path / "twice", "a.nii", "a.nii.gz"))
    assert str(tmp_path / "twice/a.nii") in message
    assert str(tmp_path / "twice/a.nii.gz") in message
    assert "same name but for the suffix" in message
    message = refused(folder_of(tmp_path / "bell", "a\x07.nii"))
    assert r"'a\x07.nii' as the name of a volume" in message


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
    # A quoted text must begin at the comma, as everywhere in CSV.
    assert "line 4, has more than 3 columns" in refused(tmp_path)
    write_csv(tmp_path, "class,file", '"Herz, links",./a.nii', "h,b.nii", "l,sub/deep/c.nii")
    assert listed(tmp_path) == [("a", "Herz, links"), ("b", "h"), ("sub/deep/c", "l")]


def test_a_manifest_from_elsewhere_wins(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "volumes", "liver/a.nii", "liver/b.nii")
    write_csv(folder, "file,class", "liver/a.nii,x", "liver/b.nii,x")
    other = write_csv(tmp_path, "file,class", "liver/a.nii,y", "liver/b.nii,z", name="other.csv")
    assert listed(folder) == [("liver/a", "x"), ("liver/b", "x")]
    assert listed(folder, other) == [("liver/a", "y"), ("liver/b", "z")]
    assert f"the manifest {tmp_path / 'o.txt'} must end" in refused(folder, tmp_path / "o.txt")
    assert f"{tmp_path / 'no.csv'} cannot be read (No such file" in refused(
        folder, tmp_path / "no.csv"
    )


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["file;class", "a.nii;x"], "columns file and class, separated by commas (it has: file;cl"),
        ([""], "separated by commas (it has: none)"),
        (["file,class,class", "a.nii,x,y"], "must begin with a line"),
        (["file,class", "a.nii,x", "gone.nii,x"], "line 3, names 'gone.nii', but"),
        (["file,class", "a.nii,x", "b.nii,"], "line 3, lacks a file or a class"),
        (["file,class", "a.nii,x", "b.nii"], "line 3, lacks a file or a class"),
        (["file,class", "a.nii,x", "./a.nii,x"], "line 3, names 'a.nii' a second time"),
        (["file,class", "a.nii,x"], "has no entry for"),
        (["file,class", "../a.nii,x"], "line 2, names '../a.nii'; a manifest's files lie inside"),
        (["file,class", "/etc/a.nii,x"], "line 2, names '/etc/a.nii'; a manifest's files lie"),
        (["file,class", "..\\a.nii,x"], "a manifest's files lie inside"),
        (["file,class", "C:a.nii,x"], "a manifest's files lie inside"),
        (["file,class", "a.nii,x\x1b[31m", "b.nii,x"], "line 2, has 'x\\x1b[31m' as a class"),
        (["file,class", "a.nii,\u202ex", "b.nii,x"], "with characters that do not print"),
        (["file,class", 'a.nii,"x'], "is not readable as CSV"),
    ],
)
def test_a_csv_with_a_mistake(tmp_path: Path, lines: list[str], sentence: str) -> None:
    folder_of(tmp_path, "a.nii", "b.nii")
    message = refused(tmp_path, write_csv(tmp_path, *lines))
    assert sentence in message
    assert str(tmp_path) in message


def test_a_csv_that_is_no_text(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.nii")
    (tmp_path / "manifest.csv").write_bytes("file,class\na.nii,Körper".encode("latin-1"))
    assert "is not readable as CSV ('utf-8' codec" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], "has no list `samples`"),
        ({"samples": {}}, "has no list `samples`"),
        ({"samples": ["a.nii"]}, "samples[0], lacks a file or a class (both text)"),
        ({"samples": [{"file": "a.nii", "class": 3}]}, "samples[0], lacks a file or a class"),
        ({"samples": [{"file": "b.nii", "class": "x"}]}, "samples[0], names 'b.nii', but"),
        ({"samples": [{"file": "../a.nii", "class": "x"}]}, "samples[0], names '../a.nii'; a m"),
        ({"samples": [{"file": "a.nii", "class": "x\ny"}]}, "samples[0], has 'x\\ny' as a class"),
        ({"samples": [{"file": "a.nii", "class": " "}]}, "characters that do not print"),
        ({"samples": []}, "manifest.json has no entry for"),
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
        assert "is not readable as JSON" in refused(tmp_path)


def test_two_manifests_are_one_too_many(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.nii", "manifest.json", "manifest.csv")
    assert "has both manifest.json and manifest.csv; remove one." in refused(tmp_path)
