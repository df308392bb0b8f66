from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prod9.data.brats.cases import MODALITIES
from prod9.data.brats.scans import Scan, ScanSet, common_grid
from prod9.data.volume_sets.open import scans_collection
from prod9.errors import Prod9Error

SPACING = (1.0, 1.0, 2.0)


def scan(folder: Path, name: str, shape: tuple[int, int, int], value: float) -> Scan:
    """Return a scan: one voxel of nothing around a box of ``value + modality / 16``."""
    box = tuple(side - 2 for side in shape)
    voxels = np.stack([np.full(box, value + m / 16, np.float16) for m in range(len(MODALITIES))])
    path = folder / f"{name}.npy"
    np.save(path, voxels)
    return Scan(name, name, name, path, shape, (1, 1, 1), SPACING, shape, SPACING)


@pytest.fixture
def scans(tmp_path: Path) -> ScanSet:
    return common_grid([scan(tmp_path, "A", (6, 5, 4), 0.25), scan(tmp_path, "B", (4, 5, 6), 0.5)])


def test_every_modality_of_every_scan_is_a_volume(scans: ScanSet) -> None:
    volumes = scans_collection(scans, "cohort/test")
    assert volumes.names == tuple(f"{case}_{m}" for case in "AB" for m in MODALITIES)
    assert volumes.class_names == tuple(MODALITIES)
    assert volumes.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert (volumes.shape, volumes.spacing_mm) == ((6, 5, 6), SPACING)
    assert (volumes.name, volumes.files) == ("cohort/test", None)
    expected = np.zeros((6, 5, 6), np.float32)
    # B is two voxels thinner than the grid: one voxel of margin, and one around its box.
    expected[2:4, 1:4, 1:5] = 0.5 + 2 / 16
    assert np.array_equal(volumes[6], expected)
    assert volumes[6].dtype == np.float32
    for index in range(8):
        assert np.array_equal(volumes[index], scans.whole(index // 4, index % 4))
    with pytest.raises(IndexError):
        volumes[8]


def test_spacings_that_differ_are_not_known(scans: ScanSet) -> None:
    first, second = scans.scans
    for width, expected in ((2.01, SPACING), (2.1, None)):
        other = replace(second, spacing_mm=(1.0, 1.0, width))
        volumes = scans_collection(ScanSet((first, other), scans.shape), "cohort")
        assert volumes.spacing_mm == expected


def test_no_scans(scans: ScanSet) -> None:
    with pytest.raises(Prod9Error, match="cohort has no scans"):
        scans_collection(ScanSet((), scans.shape), "cohort")
