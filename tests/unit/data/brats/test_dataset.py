"""A BraTS folder from its configuration: what stops, what is said, what is used again."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prod9.config import BraTSDataConfig, PreprocessingConfig
from prod9.data.brats.dataset import open_brats
from prod9.data.dataset import require_unseen
from prod9.data.phantom.cohort import make_phantom
from prod9.errors import Prod9Error
from prod9.files import atomic_write

WIDE = PreprocessingConfig(spacing_mm=(12.0, 12.0, 12.0))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brats") / "cohort"
    make_phantom(folder, cases=5, release="2023", seed=0, voxel_mm=8.0)
    return folder


@pytest.fixture
def folder(cohort: Path, tmp_path: Path) -> Path:
    """Return a copy that may be broken."""
    return Path(shutil.copytree(cohort, tmp_path / "cohort"))


def config(folder: Path, **rest: Any) -> BraTSDataConfig:
    """Everything that is written lies beside ``folder``."""
    own: dict[str, Any] = {
        "dataset_name": "brats",
        "data_dir": folder,
        "split_file": folder.parent / "split.json",
        "cache_dir": folder.parent / "cache",
    }
    return BraTSDataConfig.model_validate(own | rest)


def refused(data: BraTSDataConfig) -> str:
    with pytest.raises(Prod9Error) as caught:
        open_brats(data, WIDE)
    return str(caught.value)


def break_two(folder: Path) -> Path:
    """Leave a case without T2, and another with a T1 whose gzip is damaged; return that file."""
    (folder / "BraTS-GLI-00003-000" / "BraTS-GLI-00003-000-t2w.nii.gz").unlink()
    damaged = folder / "BraTS-GLI-00002-000" / "BraTS-GLI-00002-000-t1n.nii.gz"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    return damaged


def test_what_is_found_is_said(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"split_file": tmp_path / "split.json", "cache_dir": tmp_path / "cache"}
    sets = open_brats(config(cohort, **places), WIDE)
    assert {name: len(scans) for name, scans in sets.items()} == {"train": 3, "val": 1, "test": 1}
    # 240 x 240 x 155 mm: ceil(/8) voxels of 8 mm, of which two thirds are wider ones.
    assert {scans.shape for scans in sets.values()} == {(20, 20, 13)}
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first == (
        f"{cohort}: release 2023-2024; 5 usable cases of 5 subjects, 0 broken; T1, T1ce, T2, "
        f"FLAIR; preprocessed to 20 x 20 x 13 voxels of 12 x 12 x 12 mm, in {tmp_path / 'cache'}"
    )
    assert second == f"split by subject ({tmp_path / 'split.json'}): 3 train, 1 val, 1 test"


def test_every_subject_is_in_one_split(folder: Path) -> None:
    sets = open_brats(config(folder), WIDE)
    names = [scan.name for scans in sets.values() for scan in scans.scans]
    assert sorted(names) == [f"BraTS-GLI-{i:05d}-000" for i in range(5)]
    written = json.loads((folder.parent / "split.json").read_text())
    for split, scans in sets.items():
        assert written[split] == [scan.subject for scan in scans.scans]


def test_timepoints_of_a_subject_stay_together(folder: Path) -> None:
    for index in range(5):
        again = folder / f"BraTS-GLI-{index:05d}-001"
        again.mkdir()
        for path in (folder / f"BraTS-GLI-{index:05d}-000").iterdir():
            shutil.copy(path, again / path.name.replace("-000-", "-001-"))
    sets = open_brats(config(folder), WIDE)
    for scans in sets.values():
        subjects = [scan.subject for scan in scans.scans]
        assert all(subjects.count(subject) == 2 for subject in subjects)


def test_two_threads_may_write_the_same_cache_entry(tmp_path: Path) -> None:
    # Two cases with the same content are prepared at the same time.
    both = threading.Barrier(2, timeout=10)

    def write(text: str) -> None:
        with atomic_write(tmp_path / "entry") as temporary:
            temporary.write_text(text)
            both.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ["same", "same"]))
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]
    assert (tmp_path / "entry").read_text() == "same"


def test_broken_cases_stop_with_a_list(folder: Path) -> None:
    damaged = break_two(folder)
    said = refused(config(folder))
    assert said.startswith(
        f"2 of 5 cases in {folder} cannot be used, the first: BraTS-GLI-00002-000 cannot be used: "
        f"{damaged} "
    )
    assert said.endswith(
        f" Repair them (all causes: prod9 data inspect {folder}), or set data.on_bad_case=skip to "
        "leave them out."
    )
    assert not (folder.parent / "split.json").exists()


def test_broken_cases_are_left_out_loudly(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = break_two(folder)
    sets = open_brats(config(folder, on_bad_case="skip"), WIDE)
    names = {scan.name for scans in sets.values() for scan in scans.scans}
    assert names == {f"BraTS-GLI-0000{i}-000" for i in (0, 1, 4)}
    said = capsys.readouterr().err.splitlines()
    assert "; 3 usable cases of 3 subjects, 2 broken; " in said[0]
    assert said[1].startswith(f"left out: BraTS-GLI-00002-000 cannot be used: {damaged} ")
    assert said[2].startswith("left out: BraTS-GLI-00003-000 has no T2 ")


def test_nothing_usable(folder: Path) -> None:
    for path in folder.rglob("*-t1c.nii.gz"):
        path.write_bytes(path.read_bytes()[:2000])
    said = refused(config(folder, on_bad_case="skip"))
    assert said == f"{folder} has no case that can be used; see the causes above."


@pytest.mark.parametrize("inside", ["", "cache", "a/b"])
def test_the_data_folder_is_only_read(folder: Path, inside: str) -> None:
    before = sorted(folder.rglob("*"))
    said = refused(config(folder, cache_dir=folder / inside))
    assert said.startswith(f"data.cache_dir ({folder / inside}) lies inside data.data_dir (")
    open_brats(config(folder), WIDE)
    assert sorted(folder.rglob("*")) == before


def test_a_link_into_the_data_folder_is_seen_through(folder: Path) -> None:
    link = folder.parent / "elsewhere"
    link.symlink_to(folder)
    assert "lies inside data.data_dir" in refused(config(folder, cache_dir=link / "cache"))
    # Only the beginning of a name is no folder.
    open_brats(config(folder, cache_dir=folder.with_name("cohort-cache")), WIDE)


def test_the_users_cache_is_used_when_none_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROD9_CACHE", str(folder.parent / "own"))
    sets = open_brats(config(folder, cache_dir=None), WIDE)
    paths = [scan.path for scans in sets.values() for scan in scans.scans]
    assert {path.parent for path in paths} == {folder.parent / "own" / "scans"}


def test_a_split_is_drawn_once(folder: Path) -> None:
    first = open_brats(config(folder), WIDE)
    path = folder.parent / "split.json"
    written = path.read_bytes()
    # A case less: everybody else stays where he was.
    gone = first["train"].scans[0].name
    shutil.rmtree(folder / gone)
    second = open_brats(config(folder), WIDE)
    assert path.read_bytes() == written
    for split, scans in first.items():
        left = [scan.name for scan in scans.scans if scan.name != gone]
        assert [scan.name for scan in second[split].scans] == left
    said = refused(config(folder, split_seed=3))
    assert said.startswith(f"{path} was drawn with ")
    assert "seed 0, not 3" in said


def test_a_new_subject_is_not_put_anywhere_silently(folder: Path) -> None:
    open_brats(config(folder), WIDE)
    make_phantom(folder, cases=6, release="2023", seed=0, voxel_mm=8.0, overwrite=True)
    said = refused(config(folder))
    path = folder.parent / "split.json"
    assert said.startswith(f"{path} lacks 1 of the 6 subjects in the data, the first is ")
    assert "BraTS-GLI-00005" in said


def test_a_split_may_not_become_empty(folder: Path) -> None:
    sets = open_brats(config(folder), WIDE)
    shutil.rmtree(folder / sets["val"].scans[0].name)
    said = refused(config(folder))
    assert said == (
        f"{folder.parent / 'split.json'} leaves no scan of {folder} for val; choose another "
        "data.split_file to split anew."
    )


def test_too_few_subjects(folder: Path) -> None:
    for index in range(2, 5):
        shutil.rmtree(folder / f"BraTS-GLI-{index:05d}-000")
    said = refused(config(folder))
    assert said.startswith("too few subjects to split: there are 2, at least 3 are needed")


def test_no_folder_says_where_to_get_one(tmp_path: Path) -> None:
    said = refused(config(tmp_path / "none"))
    assert said.startswith(f"{tmp_path / 'none'} does not exist")
    assert "data.data_dir" in said
    assert f"prod9 data make-phantom-brats {tmp_path / 'none'} --cases 6" in said
    assert not (tmp_path / "cache").exists()


def test_all_releases_give_the_same_scans(tmp_path: Path) -> None:
    """The same cases under the names, in the files and with the labels of three releases."""
    arrays: list[list[np.ndarray]] = []
    for release in ("2021", "2023", "msd"):
        folder = tmp_path / release / "cohort"
        make_phantom(folder, cases=3, release=release, seed=4, voxel_mm=8.0)
        sets = open_brats(config(folder), WIDE)
        arrays.append(
            [
                sets[split].whole(0, modality)
                for split in ("train", "val", "test")
                for modality in range(4)
            ]
        )
    for other in arrays[1:]:
        for one, two in zip(arrays[0], other, strict=True):
            np.testing.assert_array_equal(one, two)
    assert len({array.tobytes() for array in arrays[0]}) == 12


def test_a_case_that_is_mended_later_has_its_place(folder: Path) -> None:
    t2 = folder / "BraTS-GLI-00003-000" / "BraTS-GLI-00003-000-t2w.nii.gz"
    kept = t2.read_bytes()
    t2.unlink()  # broken by its names alone
    before = open_brats(config(folder, on_bad_case="skip"), WIDE)
    t2.write_bytes(kept)
    after = open_brats(config(folder), WIDE)
    for name, scans in before.items():
        assert set(scans.subjects) <= set(after[name].subjects)
    assert sum(map(len, after.values())) == sum(map(len, before.values())) + 1


def test_who_was_trained_on_may_not_be_a_test(folder: Path) -> None:
    data = config(folder)
    scans = open_brats(data, WIDE)
    require_unseen(scans["train"].subjects, scans, "the tokenizer")
    require_unseen((), scans, "the tokenizer")
    seen = scans["test"].subjects[0]
    with pytest.raises(Prod9Error, match=f"1 subjects of val or test.*first is {seen}"):
        require_unseen([seen, "someone else"], scans, "the tokenizer")


def test_several_releases_in_a_folder_are_warned_of(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_phantom(folder / "more", cases=1, release="2021", seed=1, voxel_mm=8.0)
    open_brats(config(folder), WIDE)
    assert "warning: releases share patients" in capsys.readouterr().err
