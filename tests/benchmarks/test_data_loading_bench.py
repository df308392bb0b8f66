"""The data benchmark: both sides read the same volumes, all of them, and open anew when asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import data_files
from benchmarks import data_loading as bench
from prod9.data import scan_cache

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write into a folder of the test, and without a process of its own (which takes seconds)."""
    monkeypatch.setenv("PROD9_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        data_files.subprocess, "run", lambda command, **_: data_files._main(*command[3:])
    )


def sorted_rows(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all volumes (N, voxels) and labels of an epoch, in an order of their own."""
    parts = [(b["image"], b["label"]) if isinstance(b, dict) else (b[0], b[1]) for b in batches]
    volumes = torch.cat([v.flatten(1).double() for v, _ in parts])
    labels = torch.cat([label for _, label in parts])
    weights = torch.linspace(1, 2, volumes.shape[1], dtype=torch.float64)
    order = (volumes @ weights).argsort()
    return volumes[order], labels[order]


def test_npz_volumes_are_the_same() -> None:
    ours, labels = sorted_rows(bench.open_npz(count=16, side=28, seed=0))
    theirs, rival_labels = sorted_rows(bench.open_npz_monai(count=16, side=28, workers=0))
    assert ours.shape == (16, 28**3)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert torch.equal(labels, rival_labels)
    assert labels.sort().values.tolist() == sorted(i % 11 for i in range(16))
    assert ours.std() > 0.05


def test_tokens_are_the_same() -> None:
    ours, labels = sorted_rows(bench.open_tokens(count=64, side=3, seed=0))
    theirs, rival_labels = sorted_rows(bench.open_tokens_monai(count=64, side=3, workers=0))
    assert ours.shape == (64, 27)
    assert torch.equal(ours, theirs)
    assert torch.equal(labels, rival_labels)
    assert 0 <= ours.min() < ours.max() < data_files.CODES


def test_scans_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As crops larger than the scans; MONAI's percentiles are those of all voxels."""
    monkeypatch.setattr(bench, "_roi", lambda: (64, 64, 64))
    ours = list(bench.open_nifti(scans=2, voxel_mm=4, seed=0, cache=tmp_path / "scans"))
    theirs = list(bench.open_nifti_monai(scans=2, voxel_mm=4, workers=0))
    (a, labels), (b, rival_labels) = sorted_by_label(ours), sorted_by_label(theirs)
    assert a.shape == b.shape == (8, 60 * 60 * 39)
    assert labels.tolist() == rival_labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    # Each scan is most like itself: modality, axes and mirror images agree.
    alike = torch.corrcoef(torch.cat([a, b]))[:8, 8:]
    best = alike.max(1)
    assert float(best.values.min()) > 0.9
    assert torch.equal(rival_labels[best.indices], labels)
    assert len(best.indices.unique()) == 8
    mirrored = b.view(8, 60, 60, 39).flip(1).flatten(1)
    assert bool(
        (torch.corrcoef(torch.cat([a, mirrored]))[:8, 8:].max(1).values < best.values).all()
    )
    same_place = ((a > 0) == (b[best.indices] > 0)).float().mean(1)
    assert float(same_place.min()) > 0.998


def sorted_by_label(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    volumes, labels = sorted_rows(batches)
    order = labels.argsort(stable=True)
    return volumes[order], labels[order]


def test_nobody_drops_a_volume() -> None:
    for name, (kind, sizes, volumes, passes, _) in bench._SETS.items():
        assert volumes % bench.batch_size(kind) == 0
        assert volumes == (4 * sizes["scans"] if kind == "nifti" else sizes["count"])
        case = bench.case(name, "epoch")
        assert case.per_repeat == {"volumes": passes * volumes}


def test_a_repeat_is_so_many_epochs() -> None:
    sizes = {"count": 16, "side": 28}
    ours = bench.prod9("npz", "epoch", 3, sizes, 0)
    theirs = bench.monai("npz", "epoch", 3, sizes, 0, 0)
    assert ours.run() == theirs.run() == 48
    assert ours.run() == 48  # the loader can be gone through again


@pytest.fixture
def preprocessed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the cases that were preprocessed, as they come."""
    names: list[str] = []
    real: Callable[..., Any] = scan_cache._preprocess

    def counted(case: Any, preprocessing: Any) -> Any:
        names.append(case.name)
        return real(case, preprocessing)

    monkeypatch.setattr(scan_cache, "_preprocess", counted)
    return names


def test_a_folder_is_new_each_time_or_known_each_time(preprocessed: list[str]) -> None:
    sizes = {"scans": 2, "voxel_mm": 4}
    ever = bench.prod9("nifti", "first_batch_ever", 1, sizes, 0)
    assert preprocessed == []
    for count in (2, 4):
        assert ever.run()[0].shape[:2] == (4, 1)
        assert len(preprocessed) == count
    later = bench.prod9("nifti", "first_batch", 1, sizes, 0)
    assert len(preprocessed) == 6
    later.run()
    later.run()
    assert len(preprocessed) == 6
    epoch = bench.prod9("nifti", "epoch", 2, sizes, 0)
    assert epoch.run() == 16


def test_files_are_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_files.files("npz", count=3, side=28)
    assert [path.name for path in folder.iterdir()] == ["organmnist3d.npz"]
    monkeypatch.setattr(data_files, "_main", None)  # nothing is written any more
    assert data_files.files("npz", count=3, side=28) == folder


def test_the_cases() -> None:
    cases = {case.name: case for case in bench.cases()}
    names = ("npz_28", "npz_64", "nifti", "tokens")
    assert set(cases) == {
        *(f"data_{name}" for name in names),
        *(f"data_{name}_first_batch" for name in names),
        "data_nifti_first_batch_ever",
    }
    for case in cases.values():
        ours, *rivals = case.contenders
        assert not case.goals
        epoch = ours.arguments["what"] == "epoch"
        workers = [rival.arguments["workers"] for rival in rivals]
        assert workers == ([0, 2] if epoch else [0])
        for rival in rivals:
            assert rival.arguments.items() >= ours.arguments.items()
