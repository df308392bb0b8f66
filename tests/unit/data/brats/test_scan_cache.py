import os
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prod9.config import PreprocessingConfig
from prod9.data import scan_cache
from prod9.data.brats import cases as module
from prod9.data.brats.cases import prepare
from prod9.data.brats.dataset import BraTSDataset
from prod9.data.brats.layouts import MODALITIES, Case, find_cases
from prod9.data.brats.phantom.cohort import make_phantom
from prod9.data.geometry import Placement
from prod9.data.intensity import IntensityScale
from prod9.data.scan_cache import Scan
from prod9.data.volume_files.read import read_volume
from prod9.errors import Prod9Error

ENDINGS = {"T1": "_t1", "T1ce": "_t1ce", "T2": "_t2", "FLAIR": "_flair"}
TWO_MM = PreprocessingConfig(spacing_mm=(2.0, 2.0, 2.0))
LPS = np.diag([-2.0, -2.0, 2.0, 1.0])
EXACT = 1 / 2048
"""Half precision in [0, 1]."""


def head(shape: tuple[int, int, int], low: Any, high: Any, seed: int) -> np.ndarray:
    """Return int16 noise in the box [low, high) and 0 around it; (4, *shape)."""
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    voxels = np.zeros((4, *shape), np.int16)
    inside = voxels[(slice(None), *box)]
    inside[:] = np.random.default_rng(seed).integers(50, 900, inside.shape)
    return voxels


def write_case(root: Path, name: str, voxels: np.ndarray, affine: np.ndarray = LPS) -> Case:
    """Write four modalities in the 2021 layout and find them again."""
    (root / name).mkdir(parents=True, exist_ok=True)
    for modality, volume in zip(MODALITIES, voxels, strict=True):
        path = root / name / f"{name}{ENDINGS[modality]}.nii"
        nib.save(nib.Nifti1Image(volume, affine), path)  # type: ignore[attr-defined]
    (case,) = [case for case in find_cases(root).cases if case.name == name]
    return case


HEADS = {
    "BraTS2021_00000": head((20, 24, 16), (3, 4, 2), (15, 20, 13), 0),
    "BraTS2021_00001": head((20, 24, 16), (5, 2, 1), (18, 21, 15), 1),
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Return two cases at the wanted spacing, and a smaller one with thicker slices."""
    root = tmp_path_factory.mktemp("brats")
    made = [write_case(root, name, voxels) for name, voxels in HEADS.items()]
    thick = head((17, 20, 9), (2, 3, 1), (14, 17, 8), 2)
    return [*made, write_case(root, "BraTS2021_00002", thick, np.diag([2.0, -2.0, 3.0, 1.0]))]


@pytest.fixture(scope="module")
def scans(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> BraTSDataset:
    prepared = prepare(cases, TWO_MM, tmp_path_factory.mktemp("cache"))
    assert prepared[1] == ()
    return on_grid(prepared[0])


def on_grid(scans: tuple[Scan, ...]) -> BraTSDataset:
    d, h, w = (max(scan.shape[axis] for scan in scans) for axis in range(3))
    return BraTSDataset("cohort", scans, (d, h, w), TWO_MM)


def refuse(case: Case) -> Any:
    raise AssertionError(f"{case.name} was read again")


# --- preparing ----------------------------------------------------------------------------------


def test_the_cache_holds_boxes_in_0_to_1(scans: BraTSDataset) -> None:
    for scan, voxels in zip(scans.scans[:2], HEADS.values(), strict=True):
        stored = np.load(scan.path, allow_pickle=False)
        # Left and back are turned to right and front.
        upright = voxels[:, ::-1, ::-1]
        inside = np.argwhere(upright.any(0))
        low, high = inside.min(0), inside.max(0) + 1
        assert stored.dtype == np.float16
        assert scan.box == tuple(low)
        assert stored.shape == (4, *(high - low))
        assert scan.shape == (20, 24, 16)
        boxed = upright[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
        for ours, raw in zip(stored, boxed.astype(np.float64), strict=True):
            # By hand: percentiles of what is not background.
            bottom, top = np.percentile(raw[raw != 0], (0.1, 99.9))
            expected = ((raw - bottom) / (top - bottom)).clip(0, 1)
            np.testing.assert_allclose(ours, np.where(raw == 0, 0, expected), rtol=0, atol=EXACT)
            assert (ours.min(), ours.max()) == (0, 1)


def test_a_whole_modality_is_scaled_and_placed(cases: list[Case], scans: BraTSDataset) -> None:
    assert scans.shape == (20, 24, 16)
    for index, case in enumerate(cases):
        for m, modality in enumerate(MODALITIES):
            raw = read_volume(case.files[modality])
            placement = Placement.of(raw.array.shape, raw.affine, TWO_MM.spacing_mm)
            expected = np.zeros(scans.shape, np.float32)
            margin = [(a - b) // 2 for a, b in zip(scans.shape, placement.shape, strict=True)]
            middle = tuple(slice(a, a + n) for a, n in zip(margin, placement.shape, strict=True))
            scale = IntensityScale.of(raw, TWO_MM.percentiles)
            expected[middle] = placement.apply(scale.apply(raw.array))
            whole = scans.whole(index, m)
            assert whole.dtype == np.float32
            np.testing.assert_allclose(whole, expected, rtol=0, atol=EXACT)
            assert not whole[expected == 0].any()


def test_a_smaller_scan_lies_in_the_middle(scans: BraTSDataset) -> None:
    # 17 x 20 x 9 voxels of 2 x 2 x 3 mm are 17 x 20 x 14 of 2 mm; on 20 x 24 x 16 that leaves
    # 3, 4 and 2: one, two and one come first.
    small = scans.scans[2]
    assert small.shape == (17, 20, 14)
    low, high = scans.box(2)
    assert low.tolist() == [small.box[axis] + (1, 2, 1)[axis] for axis in range(3)]
    occupied = np.argwhere(scans.whole(2, 0) > 0)
    assert (occupied >= low).all()
    assert (occupied < high).all()
    assert on_grid(scans.scans[2:]).shape == small.shape
    assert on_grid(scans.scans[2:]).box(0)[0].tolist() == list(small.box)


@given(start=st.tuples(*[st.integers(-9, 30)] * 3), sides=st.tuples(*[st.integers(1, 26)] * 3))
@settings(max_examples=60)
def test_a_crop_is_a_part_of_the_whole(scans: BraTSDataset, start: Any, sides: Any) -> None:
    padded = np.pad(scans.whole(1, 3), [(9, 60)] * 3)
    part = tuple(slice(a + 9, a + 9 + n) for a, n in zip(start, sides, strict=True))
    crop = scans.crop(1, 3, start, sides)
    assert crop.dtype == np.float32
    assert np.array_equal(crop, padded[part])


def test_what_is_in_the_cache_is_not_read_again(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[None] = []
    first = prepare(cases, TWO_MM, tmp_path, lambda: told.append(None))
    assert len(told) == len(cases)
    monkeypatch.setattr(module, "read_case", refuse)
    hashed: list[Path] = []
    monkeypatch.setattr(scan_cache, "hexdigest", lambda path, algorithm: hashed.append(path))
    assert prepare(cases, TWO_MM, tmp_path) == first
    assert hashed == []  # not even to see whether it changed


def test_the_same_bytes_at_another_time_or_place_are_the_same_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = HEADS["BraTS2021_00000"]
    case = write_case(tmp_path / "one", "BraTS2021_00000", voxels)
    (first,) = prepare([case], TWO_MM, tmp_path / "cache")[0]
    monkeypatch.setattr(module, "read_case", refuse)
    os.utime(case.files["T2"], ns=(1, 1))
    assert prepare([case], TWO_MM, tmp_path / "cache")[0] == (first,)
    moved = write_case(tmp_path / "two", "BraTS2021_00007", voxels)
    (second,) = prepare([moved], TWO_MM, tmp_path / "cache")[0]
    assert second == replace(first, name="BraTS2021_00007", subject="BraTS2021_00007")


def test_changed_bytes_are_another_entry(tmp_path: Path) -> None:
    voxels = HEADS["BraTS2021_00000"]
    case = write_case(tmp_path / "data", "BraTS2021_00000", voxels)
    (first,) = prepare([case], TWO_MM, tmp_path / "cache")[0]
    before = np.load(first.path, allow_pickle=False)
    changed = voxels.copy()
    changed[2, 8, 8, 8] += 40
    write_case(tmp_path / "data", "BraTS2021_00000", changed)
    os.utime(case.files["T2"], ns=(1, 1))
    (second,) = prepare([case], TWO_MM, tmp_path / "cache")[0]
    assert second.digest != first.digest
    different = np.argwhere(np.load(second.path, allow_pickle=False) != before)
    assert {tuple(place) for place in different} >= {(2, *(np.array([11, 15, 8]) - first.box))}
    assert set(different[:, 0]) == {2}
    # The old entry is still whole: another checkout may use it.
    assert np.array_equal(np.load(first.path, allow_pickle=False), before)


def test_another_preprocessing_is_another_entry(cases: list[Case], tmp_path: Path) -> None:
    settings = [
        TWO_MM,
        PreprocessingConfig(spacing_mm=(4.0, 2.0, 2.0)),
        PreprocessingConfig(spacing_mm=(2.0, 2.0, 2.0), percentiles=(0.0, 100.0)),
    ]
    made = [prepare(cases[:1], each, tmp_path)[0][0] for each in settings]
    assert len({scan.digest for scan in made}) == len({scan.path for scan in made}) == 3
    assert [scan.shape for scan in made] == [(20, 24, 16), (10, 24, 16), (20, 24, 16)]
    assert len({on_grid((scan,)).digest for scan in made}) == 3


def test_a_torn_entry_is_made_again(cases: list[Case], tmp_path: Path) -> None:
    (first,) = prepare(cases[:1], TWO_MM, tmp_path)[0]
    content = first.path.read_bytes()
    first.path.with_suffix(".json").unlink()  # what is written last
    first.path.write_bytes(content[:100])
    assert prepare(cases[:1], TWO_MM, tmp_path)[0] == (first,)
    assert first.path.read_bytes() == content


@pytest.mark.parametrize("torn", [b"\xff\xfe\x80", b"../" * 9, b"0\0" * 32, b""])
def test_a_torn_record_is_written_again(cases: list[Case], tmp_path: Path, torn: bytes) -> None:
    scans = prepare(cases[:1], TWO_MM, tmp_path)[0]
    (record,) = (tmp_path / "files").iterdir()
    whole = record.read_bytes()
    record.write_bytes(torn)
    assert prepare(cases[:1], TWO_MM, tmp_path)[0] == scans
    assert record.read_bytes() == whole


def test_four_channels_in_one_file_are_the_same_scan(
    cases: list[Case], scans: BraTSDataset, tmp_path: Path
) -> None:
    # The Decathlon's order: FLAIR, T1, T1ce, T2.
    channels = np.moveaxis(HEADS["BraTS2021_00000"][[3, 0, 1, 2]], 0, -1)
    (tmp_path / "imagesTr").mkdir()
    path = tmp_path / "imagesTr" / "BRATS_001.nii.gz"
    nib.save(nib.Nifti1Image(channels, LPS), path)  # type: ignore[attr-defined]
    (scan,) = prepare(find_cases(tmp_path).cases, TWO_MM, tmp_path / "cache")[0]
    stored = [np.load(each.path, allow_pickle=False) for each in (scan, scans.scans[0])]
    assert np.array_equal(*stored)
    assert scan.box == scans.scans[0].box


# --- what cannot be used ------------------------------------------------------------------------


def cut_short(path: Path, case: Case) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def gone(path: Path, case: Case) -> None:
    path.unlink()


def dangling(path: Path, case: Case) -> None:
    path.unlink()
    path.symlink_to(path.with_name("never-downloaded"))


def flat_affine(path: Path, case: Case) -> None:
    for each in case.files.values():
        voxels = np.array(nib.load(each).dataobj)  # type: ignore[attr-defined]
        affine = LPS.copy()
        affine[:3, 1] = affine[:3, 0] + [0, 1e-7, 0]
        nib.save(nib.Nifti1Image(voxels, affine), each)  # type: ignore[attr-defined]


def silhouettes(path: Path, case: Case) -> None:
    for each in case.files.values():
        voxels = np.array(nib.load(each).dataobj)  # type: ignore[attr-defined]
        nib.save(nib.Nifti1Image((voxels > 0).astype(np.int16), LPS), each)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (cut_short, r"_t2\.nii.*write it again"),
        (gone, r"_t2\.nii.*"),
        (dangling, r"_t2\.nii.*"),
        (flat_affine, r"repair"),
        (silhouettes, r"T1 .*_t1\.nii.*replace it"),
    ],
)
def test_a_broken_case_is_named_and_the_others_are_kept(
    cases: list[Case], tmp_path: Path, harm: Any, words: str
) -> None:
    broken = write_case(tmp_path / "data", "BraTS2021_00009", HEADS["BraTS2021_00001"])
    harm(broken.files["T2"], broken)
    prepared = prepare([broken, cases[0]], TWO_MM, tmp_path / "cache")
    assert [scan.name for scan in prepared[0]] == ["BraTS2021_00000"]
    ((name, cause),) = [(bad.name, bad.cause) for bad in prepared[1]]
    assert name == "BraTS2021_00009"
    assert re.search(words, cause), cause
    assert not cause.endswith(".")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_copies_of_a_scan_are_prepared_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four threads find that there is no entry, and write the same one at the same time.
    voxels = np.tile(HEADS["BraTS2021_00000"], (1, 3, 3, 3))
    for index in range(4):
        write_case(tmp_path / "data", f"BraTS2021_{index:05d}", voxels)
    together, real = threading.Barrier(4), module.read_case

    def wait(case: Case) -> Any:
        together.wait(timeout=20)
        return real(case)

    monkeypatch.setattr(module, "read_case", wait)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    prepared = prepare(find_cases(tmp_path / "data").cases, TWO_MM, tmp_path / "cache")
    assert prepared[1] == ()
    assert len({scan.digest for scan in prepared[0]}) == 1
    assert [scan.name[-1] for scan in prepared[0]] == list("0123")
    assert on_grid(prepared[0]).whole(3, 0).max() == 1


def test_a_cache_that_cannot_be_written_stops_everything(cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Prod9Error, match="cannot write"):
        prepare(cases[:1], TWO_MM, tmp_path / "file")


def test_an_entry_that_lost_a_file_is_made_again(tmp_path: Path) -> None:
    case = write_case(
        tmp_path / "data", "BraTS2021_00000", head((9, 10, 8), (2, 2, 2), (7, 8, 6), 0)
    )
    for lost in ("path", "meta"):
        (scan,) = prepare([case], TWO_MM, tmp_path / "cache")[0]
        before = np.load(scan.path)
        (scan.path if lost == "path" else scan.path.with_suffix(".json")).unlink()
        (again,) = prepare([case], TWO_MM, tmp_path / "cache")[0]
        assert again == scan
        assert np.array_equal(np.load(again.path), before)


def test_a_decathlon_case_follows_its_description(tmp_path: Path) -> None:
    make_phantom(tmp_path / "data", cases=1, release="msd", seed=0, voxel_mm=8.0)
    (case,) = find_cases(tmp_path / "data").cases
    config = PreprocessingConfig(spacing_mm=(8.0, 8.0, 8.0))
    (scan,) = prepare([case], config, tmp_path / "cache")[0]
    description = tmp_path / "data" / "dataset.json"
    text = description.read_text()
    swapped = text.replace("FLAIR", "@").replace("T2w", "FLAIR").replace("@", "T2w")
    description.write_text(swapped)
    (other,) = prepare([case], config, tmp_path / "cache")[0]
    t2, flair = MODALITIES.index("T2"), MODALITIES.index("FLAIR")
    assert np.array_equal(np.load(other.path)[t2], np.load(scan.path)[flair])
    assert np.array_equal(np.load(other.path)[flair], np.load(scan.path)[t2])
    description.write_text("{")
    (bad,) = prepare([case], config, tmp_path / "cache")[1]
    assert "dataset.json" in bad.cause
