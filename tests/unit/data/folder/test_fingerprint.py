"""What is chosen from the scans: scaling, window, spacing and grid, against numbers by hand."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_folders import write

from prod9.config.dataset import DatasetDescription, read_description, write_description
from prod9.data.folder.choices import completed, ct_window
from prod9.data.folder.fingerprint import ChannelPrint, Fingerprint, take_fingerprint
from prod9.data.folder.inspection import inspect_folder
from prod9.data.folder.understand import understand
from prod9.data.volume_files.stored_volume import StoredVolume

REAL = Path(os.environ.get("PROD9_REAL_DATA", Path(__file__).parents[5] / "shared" / "data"))
SHAPE = (20, 20, 20)


def chosen(root: Path) -> tuple[DatasetDescription, Fingerprint]:
    description, problems = understand(root)
    assert problems == ()
    fingerprint = take_fingerprint(description)
    assert fingerprint.problems == ()
    return completed(description, fingerprint), fingerprint


def write_all(root: Path, arrays: Sequence[np.ndarray]) -> None:
    for number, array in enumerate(arrays):
        write(root / f"p{number}.nii.gz", array)


def uniform(low: float, high: float, seed: int) -> np.ndarray:
    array = np.random.default_rng(seed).uniform(low, high, SHAPE)
    array[0, 0, 0], array[0, 0, 1] = low, high
    return array


@pytest.mark.parametrize(
    ("make", "scaling"),
    [
        (lambda seed: uniform(0, 900 + 99 * seed, seed).astype(np.int16), "percentiles"),
        (lambda seed: uniform(0, 1, seed).astype(np.float32), "stored"),
        (lambda seed: uniform(0, 0.003, seed).astype(np.float32), "percentiles"),  # an ADC map
        (lambda seed: uniform(0, 255, seed).astype(np.uint8), "stored"),
        (lambda seed: uniform(0, 255 - 9 * seed, seed).astype(np.uint8), "percentiles"),
        (lambda seed: uniform(0, 255, seed).astype(np.int16), "percentiles"),
        (lambda seed: 255 * (uniform(0, 1, seed) > 0.5).astype(np.int16), "stored"),
        (lambda seed: (uniform(0, 1, seed) > 0.5).astype(np.float64), "stored"),
        (lambda seed: uniform(-3, 3, seed).astype(np.float32), "percentiles"),
        (lambda seed: uniform(-1024, 1500, seed).astype(np.int16), "window"),
    ],
)
def test_scaling(make: Callable[[int], np.ndarray], scaling: str, tmp_path: Path) -> None:
    write_all(tmp_path, [make(seed) for seed in range(3)])
    assert chosen(tmp_path)[0].channels["image"].scaling == scaling


def test_one_scan_on_another_scale_decides(tmp_path: Path) -> None:
    arrays = [uniform(0, 255, seed).astype(np.uint8) for seed in range(3)]
    write_all(tmp_path, [*arrays, uniform(0, 1.7e6, 3).astype(np.float32)])
    assert chosen(tmp_path)[0].channels["image"].scaling == "percentiles"


def test_the_window_of_a_ct_holds_the_body(tmp_path: Path) -> None:
    body = np.full(SHAPE, -1000, np.int16)  # air
    body[4:16, 4:16, 4:16] = 43
    body[0, 0, 0] = 3000  # metal, less than one voxel in two hundred
    other = body.copy()
    other[4:6, 4:16, 4:16] = -97  # fat
    write_all(tmp_path, [body, other])
    entry = chosen(tmp_path)[0].channels["image"]
    assert (entry.scaling, entry.window) == ("window", (-100.0, 50.0))


@given(st.lists(st.integers(-499, 3000), min_size=201, max_size=398))
def test_the_window_is_that_of_numpy(values: list[int]) -> None:
    array = np.full(8 * 8 * 8, -1000.0)
    array[: len(values)] = values
    array[len(values)] = 100
    volume = StoredVolume.of(array.reshape(8, 8, 8), Path("x.npy"))
    body = ChannelPrint.of(volume).body
    assert body is not None
    low, high = ct_window(body)
    inside = np.sort([*values, 100])
    first, last = np.percentile(inside, (0.5, 99.5), method="inverted_cdf")
    assert low <= first < low + 10
    assert high - 10 <= last < high


@pytest.mark.parametrize(
    # Whole heads have background around them; parts of the body fill the grid that most have.
    ("ground", "grid"),
    [(True, (40, 24, 16)), (False, (32, 24, 8))],
)
def test_spacing_and_grid_along_the_right_axes(
    tmp_path: Path, ground: bool, grid: tuple[int, int, int]
) -> None:
    # Axes of the file: up (3 mm), right (1 mm), front (2 mm).
    affine = np.array([[0, 1.0, 0, 0], [0, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 1]])
    sides = ((10, 30, 20), (10, 30, 20), (11, 33, 20))
    for number, shape in enumerate(sides):
        array = np.random.default_rng(number).integers(1, 99, shape).astype(np.int16)
        if ground:
            array[:, :, (0, -1)] = array[:, (0, -1)] = array[(0, -1), :] = 0
        write(tmp_path / f"p{number}.nii.gz", array, affine)
    description, fingerprint = chosen(tmp_path)
    assert description.spacing_mm == (1.0, 2.0, 3.0)
    assert description.shape == grid
    assert description.cut_out == (not ground)
    assert {scan.orientation for scan in fingerprint.scans.values()} == {"SRA"}


def test_a_few_large_scans_do_not_decide_the_grid(tmp_path: Path) -> None:
    for number in range(60):
        side = 40 if number == 7 else 16
        array = np.random.default_rng(number).integers(1, 99, (side, 16, 16)).astype(np.int16)
        write(tmp_path / f"p{number}.nii.gz", array)
    description, _ = chosen(tmp_path)
    assert description.shape == (16, 16, 16)
    said = dict(inspect_folder(tmp_path).lines)["training grid"]
    assert "0 of 60 cases are padded" in said
    assert "1 cropped around their middle, the largest is p7 with 40 x 16 x 16 voxels" in said


def test_what_the_user_chose_stays(tmp_path: Path) -> None:
    write_all(tmp_path, [uniform(0, 900, seed).astype(np.int16) for seed in range(3)])
    description = chosen(tmp_path)[0]
    entry = description.channels["image"].model_copy(update={"scaling": "stored"})
    update = {"channels": {"image": entry}, "shape": (24, 24, 24), "spacing_mm": (2.0, 2.0, 2.0)}
    write_description(tmp_path / "dataset.yaml", description.model_copy(update=update))
    again = chosen(tmp_path)[0]
    assert again.channels["image"].scaling == "stored"
    assert again.channels["image"].window == (0, 255)  # what "stored" means for these values
    written = read_description(tmp_path / "dataset.yaml")
    assert again.model_copy(update={"channels": written.channels}) == written
    assert (again.shape, again.spacing_mm) == ((24, 24, 24), (2.0, 2.0, 2.0))


def test_values_of_labels(tmp_path: Path) -> None:
    for number, labels in enumerate(((0, 1, 4), (0, 2, 4))):
        random = np.random.default_rng(number)
        write(tmp_path / f"p{number}_t1.nii.gz", random.integers(1, 9, SHAPE).astype(np.int16))
        write(tmp_path / f"p{number}_seg.nii.gz", random.choice(labels, SHAPE).astype(np.uint8))
    assert chosen(tmp_path)[0].channels["seg"].values == (0, 1, 2, 4)


def test_progress_is_called_for_each_scan(tmp_path: Path) -> None:
    write_all(tmp_path, [uniform(0, 900, seed).astype(np.int16) for seed in range(3)])
    calls: list[tuple[int, int]] = []
    take_fingerprint(understand(tmp_path)[0], lambda done, count: calls.append((done, count)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.skipif(not (REAL / "Task04_Hippocampus").is_dir(), reason="no real data there")
def test_the_real_hippocampus_read_once() -> None:
    description, fingerprint = chosen(REAL / "Task04_Hippocampus")
    assert len(fingerprint.scans) == 260
    assert description.channels["MRI"].scaling == "percentiles"
    assert description.channels["label"].values == (0, 1, 2)
    assert description.spacing_mm == (1.0, 1.0, 1.0)
    assert description.shape == (40, 56, 40)
