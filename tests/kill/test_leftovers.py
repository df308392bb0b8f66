"""What a killed process left is removed; what is anybody else's is not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prod9 import files
from prod9.files import remove_leftovers, require_writable, temporary_for, write_text

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs processes one can ask for")


@pytest.fixture
def dead() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def name_of(process: int, machine: str = files._MACHINE) -> str:
    return f".{machine}-{process}-140000.tmp.figures.json"


@POSIX
def test_only_what_dead_processes_of_this_machine_left(tmp_path: Path, dead: int) -> None:
    mine = temporary_for(tmp_path / "figures.json").name
    kept = {
        mine,
        name_of(os.getppid()),
        name_of(1),  # init: lives, and is not ours to signal
        name_of(dead, "0badc0de"),  # another machine's, on a shared disk
        f".{dead}.tmp.figures.json",
        "figures.json",
        ".hidden",
    }
    for name in (*kept, name_of(dead), name_of(dead) + "\n"):
        (tmp_path / name).write_text("x")
    (tmp_path / name_of(dead, files._MACHINE).replace("figures", "case") / "inner").mkdir(
        parents=True
    )
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


@POSIX
def test_what_nobody_can_ask_for_is_kept_for_a_day(tmp_path: Path) -> None:
    alive = os.getpid()  # numbers of another container: they say nothing here
    for name, hours in (("0badc0de", 25), ("0badc0df", 23), (files._MACHINE, 25)):
        path = tmp_path / name_of(alive, name)
        path.write_text("x")
        os.utime(path, (then := time.time() - 3600 * hours, then))
    remove_leftovers(tmp_path)
    left = {name_of(alive, "0badc0df"), name_of(alive)}
    assert {path.name for path in tmp_path.iterdir()} == left


@POSIX
@pytest.mark.parametrize("what", ["_BOOT", "_PROCESSES"])
def test_containers_of_one_host_name_are_not_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    (tmp_path / "other").write_text("another boot, another inode")
    mine = files._machine()
    assert mine == files._MACHINE
    monkeypatch.setattr(files, what, tmp_path / "other")
    another = files._machine()
    monkeypatch.setattr(files, what, tmp_path / "missing")
    assert another not in (mine, files._machine())


@POSIX
def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path, dead: int) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name_of(dead)).symlink_to(outside, target_is_directory=True)
    remove_leftovers(folder)
    assert list(folder.iterdir()) == []
    assert (outside / "inner").is_dir()


@POSIX
@pytest.mark.parametrize("how", ["write", "check"])
def test_whoever_writes_next_removes_them(tmp_path: Path, dead: int, how: str) -> None:
    (tmp_path / name_of(dead)).write_text("x")
    if how == "write":
        write_text(tmp_path / "other.json", "new")
        assert [path.name for path in tmp_path.iterdir()] == ["other.json"]
    else:
        require_writable(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_the_temporary_name_keeps_its_end(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    assert temporary_for(path).name.endswith(".scan.nii.gz")
    assert temporary_for(path).parent == tmp_path
