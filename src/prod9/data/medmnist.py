"""MedMNIST 3D: its files, got, judged and read.

``brainregionmnist3d`` (see :mod:`prod9.data.brain_regions`) has the same layout and runs through
the same reader; which data sets there are stands in :mod:`prod9.data.medmnist_table`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from prod9.config.data import MedMNISTSourceConfig, PreprocessingConfig, SourceConfig
from prod9.data import brain_regions
from prod9.data.dataset import ArrayDataset, Outline
from prod9.data.download import fetch
from prod9.data.medmnist_table import BRAIN, TABLE, Row, class_names, members
from prod9.data.splits import SPLITS, Split
from prod9.data.volume_files.npz import ArrayHeader, npz_headers, read_npz_array
from prod9.errors import Prod9Error
from prod9.runtime.distributed import main_first

_HINT = "data.dataset_name=brainregionmnist3d works without internet"


@dataclass(frozen=True)
class DatasetFile:
    """What ``prod9 data`` and ``prod9 doctor`` say about one file."""

    flag: str
    size: int
    path: Path
    present: bool
    counts: Mapping[Split, int]
    """Volumes per split: the file's if it is there, else the published ones."""
    problem: str | None = None


def prepare(config: MedMNISTSourceConfig) -> tuple[Path, ...]:
    """Make sure that every file is there: build the embedded one, download the others.

    A file that is there is taken as it is, whatever its digest.

    Raises:
        Prod9Error: a file is missing and cannot be had; the sentence says where to get it.
    """
    return tuple(_ensure(row, config) for row in members(config.dataset_name))


def open_medmnist(
    config: SourceConfig, preprocessing: PreprocessingConfig | None = None
) -> "MedMNISTSplits":
    """Return the splits of a section ``data``; each is read when it is asked for.

    Raises:
        Prod9Error: a tokenizer's ``preprocessing``: these cubes are taken as they are.
    """
    assert isinstance(config, MedMNISTSourceConfig)
    return MedMNISTSplits(config)


class MedMNISTSplits:
    """The published splits of a data set, or of all six with joint classes."""

    def __init__(self, config: MedMNISTSourceConfig) -> None:
        self.config = config

    def __getitem__(self, split: Split) -> ArrayDataset:
        """Read a split.

        Raises:
            Prod9Error: a file is missing and cannot be had, or is not of MedMNIST's layout.
        """
        with main_first():  # it may have to be downloaded
            return load(self.config, split)


def load(config: MedMNISTSourceConfig, split: Split) -> ArrayDataset:
    """Read one split, as :class:`MedMNISTSplits` does."""
    rows, paths = members(config.dataset_name), prepare(config)
    counts = [
        _check_headers(path, npz_headers(path), config.size, (split,))[split] for path in paths
    ]
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
    return ArrayDataset(
        f"{config.dataset_name}/{split}",
        images[:, None],
        names=[
            f"{row.flag}/{split}/{i}" for row, n in zip(rows, counts, strict=True) for i in range(n)
        ],
        classes=np.concatenate(classes),
        class_names=class_names(config.dataset_name),
        flips=[row.flip_axes for row in rows for _ in row.class_names],
        spacing_mm=spacing_of(config),
    )


def outline_medmnist(config: SourceConfig, subjects: int | None = None) -> Outline:
    """Return the published numbers of volumes."""
    assert isinstance(config, MedMNISTSourceConfig)
    rows, side = members(config.dataset_name), config.size
    train, val = (sum(row.split_sizes[which] for row in rows) for which in (0, 1))
    names = class_names(config.dataset_name)
    return Outline(train, val, (side, side, side), names, ("volume",))


def check(config: MedMNISTSourceConfig) -> None:
    """Make sure that every file is there and sound in all three splits; read labels, not images.

    Raises:
        Prod9Error: as :func:`load`.
    """
    for row, path in zip(members(config.dataset_name), prepare(config), strict=True):
        _check_headers(path, npz_headers(path), config.size, SPLITS)
        for split in SPLITS:
            _read_labels(path, split, row)


def describe(root: Path, sizes: Iterable[int] = (28, 64)) -> list[DatasetFile]:
    """Say for each data set and size where its file belongs, and what is there."""
    rows: list[DatasetFile] = []
    for row in TABLE.values():
        for size in sizes:
            path = row.file(root, size)
            counts = dict(zip(SPLITS, row.split_sizes, strict=True))
            problem = None
            if path.exists():
                try:
                    counts = _check_headers(path, npz_headers(path), size, SPLITS)
                except Prod9Error as error:
                    counts, problem = {}, str(error)
            rows.append(DatasetFile(row.flag, size, path, path.exists(), counts, problem))
    return rows


def _ensure(row: Row, config: MedMNISTSourceConfig) -> Path:
    path = row.file(config.root, config.size)
    if path.exists():
        return path
    if row.md5:
        return fetch(
            row.url(config.size),
            path,
            digest=f"md5:{row.md5[config.size]}",
            allowed=config.download,
            what=f"{row.flag} at {config.size}^3",
            hint=_HINT,
        )
    console = Console(stderr=True)
    console.print(
        f"Building {row.flag} at {config.size}^3 (some seconds, once): {path}",
        markup=False,
        soft_wrap=True,
    )
    brain_regions.build(path, config.size)
    return path


def _check_headers(
    path: Path, headers: Mapping[str, ArrayHeader], size: int, splits: Iterable[Split]
) -> dict[Split, int]:
    """Return the number of volumes per split, or say what is wrong with the file."""
    counts: dict[Split, int] = {}
    for split in splits:
        for key in (f"{split}_images", f"{split}_labels"):
            if key not in headers:
                raise Prod9Error(
                    f"{path} has no array '{key}' (it has: {', '.join(headers) or 'none'}); it is "
                    "not in MedMNIST's layout."
                )
        images, labels = headers[f"{split}_images"], headers[f"{split}_labels"]
        if images.dtype != np.uint8:
            raise Prod9Error(f"'{split}_images' in {path} must be uint8, not {images.dtype}.")
        if len(images.shape) != 4 or images.shape[1:] != (size, size, size):
            raise Prod9Error(
                f"'{split}_images' in {path} must be N x {size} x {size} x {size} (data.size), not "
                f"{' x '.join(map(str, images.shape))}."
            )
        if labels.dtype.kind not in "iu":
            raise Prod9Error(f"'{split}_labels' in {path} must be integers, not {labels.dtype}.")
        count = images.shape[0]
        if labels.shape not in ((count, 1), (count,)):
            raise Prod9Error(
                f"'{split}_labels' in {path} must be {count} x 1, one per volume of "
                f"'{split}_images', not {' x '.join(map(str, labels.shape))}."
            )
        if count == 0:
            raise Prod9Error(f"'{split}_images' in {path} is empty; a split needs volumes.")
        counts[split] = count
    return counts


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


def spacing_of(data: MedMNISTSourceConfig) -> tuple[float, float, float] | None:
    """Return the voxel size; None for MedMNIST's cubes, which were resampled without a record."""
    if data.dataset_name != BRAIN:
        return None
    spacing = brain_regions.SPACING_MM[data.size]
    return spacing, spacing, spacing
