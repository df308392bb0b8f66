"""MedMNIST 3D: its files, downloaded, checked and read.

``brainregionmnist3d`` (see :mod:`prod9.data.brain_regions`) has the same layout and runs through
the same reader; :mod:`prod9.data.medmnist_table` lists the data sets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prod9.config.data import MedMNISTSourceConfig, SourceConfig
from prod9.data.array_dataset import ArrayDataset
from prod9.data.brain_region_table import SPACING_MM
from prod9.data.dataset import Outline
from prod9.data.download import fetch
from prod9.data.medmnist_table import BRAIN, TABLE, Row, class_names, members
from prod9.data.splits import SPLITS, Split
from prod9.data.volume_files.npz import ArrayHeader, npz_headers, read_npz_array
from prod9.data.volume_files.stored_volume import times
from prod9.errors import Prod9Error
from prod9.runtime.console import say


@dataclass(frozen=True)
class DatasetFile:
    """What ``prod9 data`` and ``prod9 doctor`` say about one file."""

    flag: str
    size: int
    path: Path
    present: bool
    counts: Mapping[Split, int]
    """Volumes per split: the file's if it exists, else the published ones."""
    problem: str | None = None


@dataclass(frozen=True)
class MedMNISTSplits:
    """The published splits of a data set, or of all six with joint classes; read on demand."""

    config: MedMNISTSourceConfig
    preprocessing: None = None

    def __getitem__(self, split: Split) -> ArrayDataset:
        from prod9.runtime.distributed import main_first  # imports PyTorch

        with main_first():  # it may have to be downloaded
            return load(self.config, split)


def outline_medmnist(config: SourceConfig, subjects: int | None = None) -> Outline:
    """Return the published numbers of volumes."""
    assert isinstance(config, MedMNISTSourceConfig)
    rows, side = members(config.dataset_name), config.size
    train, val = (sum(row.split_sizes[which] for row in rows) for which in (0, 1))
    names = class_names(config.dataset_name)
    return Outline(train, val, (side, side, side), names, ("volume",))


def prepare(config: MedMNISTSourceConfig) -> tuple[Path, ...]:
    """Make sure that every file is there: build the embedded one, download the others.

    An existing file is taken as it is, whatever its digest.

    Raises:
        Prod9Error: a file is missing and cannot be downloaded; the sentence says where to get it.
    """
    return tuple(_ensure(row, config) for row in members(config.dataset_name))


def load(config: MedMNISTSourceConfig, split: Split) -> ArrayDataset:
    """Read one split."""
    rows, paths = members(config.dataset_name), prepare(config)
    counts = [_count(path, npz_headers(path), config.size, split) for path in paths]
    if len(rows) == 1:
        images = read_npz_array(paths[0], f"{split}_images")
    else:
        # Filled part by part: concatenating would hold everything twice.
        images = np.empty((sum(counts), *[config.size] * 3), np.uint8)
        for path, part in zip(paths, np.split(images, np.cumsum(counts)[:-1]), strict=True):
            part[...] = read_npz_array(path, f"{split}_images")
    classes: list[np.ndarray] = []
    first = 0
    for row, path in zip(rows, paths, strict=True):
        classes.append(first + _read_labels(path, split, row))
        first += len(row.class_names)
    spacing = SPACING_MM[config.size]
    return ArrayDataset(
        f"{config.dataset_name}/{split}",
        images[:, None],
        names=[
            f"{row.flag}/{split}/{i}" for row, n in zip(rows, counts, strict=True) for i in range(n)
        ],
        classes=np.concatenate(classes),
        class_names=class_names(config.dataset_name),
        flips=[row.flip_axes for row in rows for _ in row.class_names],
        # MedMNIST's cubes were resampled without a record.
        spacing_mm=(spacing, spacing, spacing) if config.dataset_name == BRAIN else None,
    )


def check(config: MedMNISTSourceConfig) -> None:
    """Make sure that every file is there and sound in all three splits; read labels, not images."""
    for row, path in zip(members(config.dataset_name), prepare(config), strict=True):
        headers = npz_headers(path)
        for split in SPLITS:
            _count(path, headers, config.size, split)
            _read_labels(path, split, row)


def describe(root: Path) -> list[DatasetFile]:
    """Say for each data set and size where its file belongs, and what is there."""
    rows: list[DatasetFile] = []
    for row, size in [(row, size) for row in TABLE.values() for size in (28, 64)]:
        path = row.file(root, size)
        counts: dict[Split, int] = dict(zip(SPLITS, row.split_sizes, strict=True))
        problem = None
        if path.exists():
            try:
                headers = npz_headers(path)
                counts = {split: _count(path, headers, size, split) for split in SPLITS}
            except Prod9Error as error:
                counts, problem = {}, str(error)
        rows.append(DatasetFile(row.flag, size, path, path.exists(), counts, problem))
    return rows


def _ensure(row: Row, config: MedMNISTSourceConfig) -> Path:
    path, size = row.file(config.root, config.size), config.size
    if path.exists():
        return path
    if row.md5:
        return fetch(
            row.url(size),
            path,
            digest=f"md5:{row.md5[size]}",
            allowed=config.download,
            what=f"{row.flag} at {size}^3",
            hint=f"`prod9 data fetch {row.flag} --size {size} --root {config.root}` downloads it, "
            f"data.dataset_name={BRAIN} works without internet",
        )
    from prod9.data import brain_regions  # imports PyTorch

    say(f"Building {row.flag} at {size}^3 (some seconds, once): {path}")
    brain_regions.build(path, size)
    return path


def _count(path: Path, headers: Mapping[str, ArrayHeader], size: int, split: Split) -> int:
    """Return the number of volumes of a split, or say what is wrong with the file."""
    keys = (f"{split}_images", f"{split}_labels")
    for key in keys:
        if key not in headers:
            raise Prod9Error(
                f"{path} has no array '{key}' (it has: {', '.join(headers) or 'none'}); it is not "
                "in MedMNIST's layout."
            )
    images, labels = (headers[key] for key in keys)
    count = images.shape[0] if images.shape else 0
    if (
        images.dtype != np.uint8
        or images.shape != (count, size, size, size)
        or count == 0
        or labels.dtype.kind not in "iu"
        or labels.shape not in ((count, 1), (count,))
    ):
        found = " and ".join(f"{times(h.shape)} of {h.dtype}" for h in (images, labels))
        raise Prod9Error(
            f"'{keys[0]}' in {path} must be N x {size} x {size} x {size} (data.size) of uint8, N "
            f"not 0, and '{keys[1]}' N x 1 of integers; they are {found}."
        )
    return count


def _read_labels(path: Path, split: Split, row: Row) -> np.ndarray:
    """Return labels, int64 (N,)."""
    stored = read_npz_array(path, f"{split}_labels").reshape(-1)
    number = len(row.class_names)
    if stored.min() < 0 or stored.max() >= number:
        raise Prod9Error(
            f"'{split}_labels' in {path} must lie in 0..{number - 1} ({row.flag} has {number} "
            f"classes), not in {stored.min()}..{stored.max()}."
        )
    return stored.astype(np.int64)
