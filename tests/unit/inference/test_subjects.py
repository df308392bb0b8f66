"""Many subjects: which files are whose, and what becomes of each."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scan_files import OBLIQUE, head, stored, write_scan

import prod9
from prod9.data.brats.layouts import MODALITIES
from prod9.inference import subjects
from prod9.inference.model import Model
from prod9.inference.recorded import Recorded
from prod9.inference.subjects import find_subjects
from prod9.model import Model as Network

LAYOUTS = {
    "by channel": {"A/T1.nii.gz": "T1", "A/flair.nii": "FLAIR", "B/T2.npy": "T2"},
    "2021": {"A/A_t1.nii.gz": "T1", "A/A_flair.nii.gz": "FLAIR", "B/B_t2.nii.gz": "T2"},
    "2023": {"A/A-t1n.nii.gz": "T1", "A/A-t2f.nii.gz": "FLAIR", "B/B-t2w.nii.gz": "T2"},
    "one folder": {"A_t1.nii.gz": "T1", "A_flair.nii.gz": "FLAIR", "B_t2.nii.gz": "T2"},
    "with more in the name": {"A/A_T1w.nii": "T1", "A/A_x_FLAIR.nii": "FLAIR", "B/T2.nii": "T2"},
}


def lay(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_whose_files_they_are(tmp_path: Path, layout: str) -> None:
    files = LAYOUTS[layout]
    lay(tmp_path, *files, ".hidden/A_t1.nii.gz", "notes.txt")
    if layout != "one folder":
        lay(tmp_path, "A/A_seg.nii.gz", "B/not1.nii.gz")
    a, b = find_subjects(tmp_path, MODALITIES)
    assert (a.name, b.name) == ("A", "B")
    assert not a.problem + b.problem
    own = {channel: tmp_path / name for name, channel in files.items()}
    assert {**a.files} == {channel: own[channel] for channel in ("T1", "FLAIR")}
    assert {**b.files} == {"T2": own["T2"]}


def test_deeper_folders_keep_subjects_apart(tmp_path: Path) -> None:
    lay(tmp_path, "x/1/anat/t1.nii", "x/2/anat/t2.nii", "y/C_t1.nii", "y/C1_t2.nii", "z/T1.nii")
    lay(tmp_path, "z/a_t1.nii", "none/seg.nii", "_cache/t.nii")
    found = {each.name: each for each in find_subjects(tmp_path, MODALITIES)}
    assert [*found] == ["x/1/anat", "x/2/anat", "y/C", "y/C1", "z", "none"]
    assert {**found["y/C1"].files} == {"T2": tmp_path / "y/C1_t2.nii"}
    assert found["z"].problem.endswith("are both T1; keep one of them.")
    assert found["none"].problem.startswith(f"{tmp_path / 'none'}: no volume in it is named after")
    assert not any(each.problem for name, each in found.items() if name not in ("z", "none"))


def test_channels_of_other_names(tmp_path: Path) -> None:
    lay(tmp_path, "A/CT.nii", "A/late CT.nii", "B/x_Late CT.nii", "B/PET.nii")
    a, b = find_subjects(tmp_path, ("CT", "late CT", "PET"))
    assert {*a.files} == {"CT", "late CT"}
    assert {*b.files} == {"late CT", "PET"}
    lay(tmp_path / "two", "A/t1.nii", "A/T1w.nii")
    (only,) = find_subjects(tmp_path / "two", ("T1", "T1w"))
    assert {*only.files} == {"T1", "T1w"}


@pytest.fixture
def model(make_scan_generator: Callable[..., Network]) -> Model:
    recorded = {"sliding_window": {"roi_size": (12, 12, 12)}, "completion": {"steps": 2}}
    return Model.of(make_scan_generator(), Recorded.model_validate(recorded))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a subject with two channels, one with all, and one that is torn."""
    for subject, given in {"A": MODALITIES[:2], "B": MODALITIES, "C": MODALITIES[:1]}.items():
        for number, channel in enumerate(given):
            write_scan(tmp_path / "in" / subject / f"{channel}.nii.gz", head(number), OBLIQUE)
    (tmp_path / "in" / "0" / "T1.nii.gz").parent.mkdir()
    (tmp_path / "in" / "0" / "T1.nii.gz").write_bytes(b"torn")
    return tmp_path / "in"


def test_what_is_missing_is_made(
    model: Model, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = model.translate_folder(folder, tmp_path / "out", seed=5)
    assert capfd.readouterr() == ("", "")
    assert [(each.name, [*each.made]) for each in found] == [
        ("0", []),
        ("A", ["T2", "FLAIR"]),
        ("B", []),
        ("C", ["T1ce", "T2", "FLAIR"]),
    ]
    assert [bool(each.problem) for each in found] == [True, False, False, False]
    paths = {name: folder / "A" / f"{name}.nii.gz" for name in MODALITIES[:2]}
    (flair,) = model.translate(paths, "FLAIR", seed=5)
    assert np.array_equal(flair.get_fdata().round(), stored(found[1].made["FLAIR"]))
    files = {path.name for path in (tmp_path / "out" / "A").iterdir()}
    assert files == {
        f"{name}.{end}" for name in ("T2", "FLAIR") for end in ("nii.gz", "png", "json")
    }


def test_resume_makes_what_is_not_complete(
    model: Model, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.rmtree(folder / "0")
    asked: dict[str, Any] = {"n": 2, "seed": 5}
    model.translate_folder(folder, out, "t2f", **asked)
    before = {path: path.read_bytes() for path in out.rglob("*.nii.gz")}
    assert len(before) == 2 * 4
    drawn: list[object] = []
    real = Network.sample
    monkeypatch.setattr(
        Network, "sample", lambda self, *a, **k: drawn.append(1) or real(self, *a, **k)
    )
    (out / "A" / "FLAIR_std.nii.gz").unlink()
    with pytest.raises(prod9.Prod9Error, match=r"exists; go on with --resume, replace what"):
        model.translate_folder(folder, out, "t2f", **asked)
    found = model.translate_folder(folder, out, "t2f", resume=True, **asked)
    assert len(drawn) == 1
    assert [[*each.made] for each in found] == [["FLAIR"], [], ["FLAIR"]]
    assert before == {path: path.read_bytes() for path in out.rglob("*.nii.gz")}
    found = model.translate_folder(folder, out, "t2f", resume=True, n=2, seed=6)
    assert all("another seed" in found[index].problem for index in (0, 2))
    (out / "A" / "FLAIR.json").unlink()
    found = model.translate_folder(folder, out, "t2f", resume=True, **asked)
    assert "is in the way" in found[0].problem
    model.translate_folder(folder, out, "t2f", overwrite=True, **asked)
    assert before == {path: path.read_bytes() for path in out.rglob("*.nii.gz")}


def test_a_subject_that_does_not_fit_in_memory(
    model: Model, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(subjects, "translate_files", full)
    found = model.translate_folder(folder, tmp_path / "out", "FLAIR")
    assert [each.problem[:31] for each in found] == ["FLAIR does not fit in memory; f"] * 2 + [
        "",
        "FLAIR does not fit in memory; f",
    ]
