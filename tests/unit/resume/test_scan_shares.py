"""Scans: several processes share their preprocessing, and reading them takes no more memory."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from forked import answer_of, finish, kill, memory_mib, start, wait_for

from prod9.config import BraTSDataConfig, PreprocessingConfig
from prod9.data import scan_cache as module
from prod9.data.batches import BatchKey
from prod9.data.brats.cases import prepare
from prod9.data.brats.dataset import BraTSDataset
from prod9.data.brats.layouts import MODALITIES, Case, find_cases
from prod9.data.crops import VolumeCrops
from prod9.data.scan_cache import Scan

TWO_MM = PreprocessingConfig(spacing_mm=(2.0, 2.0, 2.0))
COUNT = 5


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    """Return four sound cases and one without contrast."""
    for number in range(COUNT):
        name = f"BraTS2021_{number:05d}"
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        random = np.random.default_rng(number)
        for modality in MODALITIES:
            volume = np.zeros((14, 12, 10), np.int16)
            volume[2:11, 3:10, 1:8] = 7 if number == 2 else random.integers(50, 900, (9, 7, 7))
            image = nib.Nifti1Image(volume, np.diag([-2.0, -2.0, 2.0, 1.0]))  # type: ignore[attr-defined]
            nib.save(image, folder / f"{name}_{modality.lower()}.nii.gz")  # type: ignore[attr-defined]
    return list(find_cases(tmp_path / "data").cases)


def told_of(prepared: Any) -> dict[str, Any]:
    """Return everything but the paths, as plain data."""
    scans = {scan.name: [scan.digest, scan.shape, scan.box] for scan in prepared[0]}
    return json.loads(json.dumps({"scans": scans, "bad": [str(case) for case in prepared[1]]}))


def prepare_all(rank: int, cases: list[Case], cache: Path, log: Path) -> None:
    """Preprocess; ``log`` tells who preprocessed what, and the answers are kept by rank."""
    preprocess = module._preprocess

    def logged(case: Case, *rest: Any) -> Any:
        with log.open("a") as file:
            file.write(f"{rank} {case.name}\n")
        return preprocess(case, *rest)

    module._preprocess = logged
    seen: list[None] = []
    prepared = prepare(cases, TWO_MM, cache, lambda: seen.append(None))
    assert len(seen) == len(cases)  # each once
    log.with_suffix(f".{rank}").write_text(json.dumps(told_of(prepared)))


def files(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder, without what a killed process left."""
    paths = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def test_two_processes_prepare_what_one_does(cases: list[Case], tmp_path: Path) -> None:
    one = prepare(cases, TWO_MM, tmp_path / "one")
    assert (len(one[0]), len(one[1])) == (COUNT - 1, 1)
    log = tmp_path / "log"
    finish(start(2, tmp_path / "meeting", prepare_all, cases, tmp_path / "two", log))
    assert files(tmp_path / "two") == files(tmp_path / "one")
    for rank in (0, 1):
        assert json.loads(log.with_suffix(f".{rank}").read_text()) == told_of(one)
    done = [line.split() for line in log.read_text().splitlines()]
    sound = [(rank, name) for rank, name in done if name != cases[2].name]
    assert sorted(name for _, name in sound) == sorted(scan.name for scan in one[0])
    assert {rank for rank, _ in sound} == {"0", "1"}


def test_killed_preprocessing_goes_on(cases: list[Case], tmp_path: Path) -> None:
    one = prepare(cases, TWO_MM, tmp_path / "one")
    log, cache = tmp_path / "log", tmp_path / "cache"
    for attempt in range(3):
        processes = start(1, tmp_path / f"m{attempt}", prepare_all, cases, cache, log)
        wait_for(lambda n=attempt: len([*cache.glob("[0-9a-f]*.npy")]) > n, processes)
        kill(processes)
    assert told_of(prepare(cases, TWO_MM, cache)) == told_of(one)
    assert files(cache) == files(tmp_path / "one")


def test_a_cut_entry_is_made_again(cases: list[Case], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    scan = prepare(cases, TWO_MM, cache)[0][0]
    whole = scan.path.read_bytes()
    scan.path.write_bytes(whole[:-100])
    prepare(cases, TWO_MM, cache)
    assert scan.path.read_bytes() == whole


def growth(folder: Path, count: int) -> list[float]:
    """Read a crop of every modality of ``count`` scans; return MiB read and MiB of growth."""
    sides = (96, 96, 96)
    path = folder / "scan.npy"
    scans: list[Scan] = []
    for index in range(count):
        own = folder / f"{index}.npy"
        if not own.exists():
            own.hardlink_to(path)
        scans.append(Scan(f"s{index}", "s", "", own, sides, (0, 0, 0), sides))
    config = BraTSDataConfig(dataset_name="brats")
    data = BraTSDataset("cohort", scans, sides, TWO_MM)
    crops = VolumeCrops(data, config, sides, train=False, seed=0)
    crops[BatchKey(0, [0])]
    before = most = memory_mib()
    for item in range(len(crops)):
        volumes = crops[BatchKey(0, [item])].volumes
        assert float(volumes[0, 0, -1, -1, -1]) == 0.5
        most = max(most, memory_mib())
    return [len(crops) * volumes.numel() * 2 / 2**20, most - before]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_cohort(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", np.full((4, 96, 96, 96), 0.5, np.float16))
    read, grown = answer_of(growth, tmp_path, 40)
    assert read > 250  # MiB
    assert grown < 25
