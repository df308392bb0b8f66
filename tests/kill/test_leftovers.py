"""What a killed process left is removed a day later; what is anybody else's is not."""

import os
import time
from pathlib import Path

import pytest

from prod9.files import atomic_write, remove_leftovers, require_writable, temporary_for, write_text


def aged(path: Path, hours: float = 25) -> Path:
    os.utime(path, (then := time.time() - 3600 * hours, then))
    return path


def test_only_old_temporary_files_and_folders_are_removed(tmp_path: Path) -> None:
    new, old, folder = (temporary_for(tmp_path / "figures.json") for _ in range(3))
    folder.mkdir()
    (folder / "inner").mkdir()
    kept = {new.name, "figures.json", ".hidden", ".x.tmp.figures.json"}
    for path in (old, *(tmp_path / name for name in kept)):
        path.write_text("x")
    for path in tmp_path.iterdir():
        aged(path, 23 if path == new else 25)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    (outside / "inner").mkdir(parents=True)
    folder.mkdir()
    link = temporary_for(folder / "x")
    link.symlink_to(outside, target_is_directory=True)
    os.utime(link, (0, 0), follow_symlinks=False)
    remove_leftovers(folder)
    assert list(folder.iterdir()) == []
    assert (outside / "inner").is_dir()


@pytest.mark.parametrize("how", ["write", "check"])
def test_whoever_writes_next_removes_them(tmp_path: Path, how: str) -> None:
    left = temporary_for(tmp_path / "x.json")
    left.write_text("x")
    aged(left)
    if how == "write":
        write_text(tmp_path / "other.json", "new")
        assert [path.name for path in tmp_path.iterdir()] == ["other.json"]
    else:
        require_writable(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_the_temporary_name_keeps_its_end_and_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    with atomic_write(path) as first, atomic_write(path) as second:
        assert first.name.endswith(".scan.nii.gz")
        assert first.parent == tmp_path
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_sole_writer_of_a_folder_removes_new_ones_too(tmp_path: Path) -> None:
    remove_leftovers(tmp_path)
    left, other = temporary_for(tmp_path / "last.ckpt"), tmp_path / "notes.txt"
    left.write_text("x")
    other.write_text("x")
    remove_leftovers(tmp_path, sole_writer=True)
    assert list(tmp_path.iterdir()) == [other]
