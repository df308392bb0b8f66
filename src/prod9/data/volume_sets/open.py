"""Data sets, folders of volumes and preprocessed scans, opened as a :class:`VolumeSet`."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np

from prod9.config import MedMNISTSourceConfig
from prod9.config.data import MedMNISTName
from prod9.data import medmnist
from prod9.data.medmnist_table import members
from prod9.data.splits import SPLITS
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_sets.headers import Header, read_header, require_one_grid
from prod9.data.volume_sets.intensity_range import (
    Intensity,
    choose_intensity,
    parse_intensity,
    with_percentiles,
)
from prod9.data.volume_sets.listing import list_volumes
from prod9.data.volume_sets.volume_set import VolumeSet, of_dataset
from prod9.errors import Prod9Error

MEMORY_BUDGET = 2 << 30
"""Bytes of volumes that a collection keeps; what is beyond is read again each time."""
_DATASETS: tuple[str, ...] = get_args(MedMNISTName)


def open_collection(
    what: str | Path,
    option: str,
    *,
    split: str = "test",
    size: int = 28,
    root: Path,
    intensity: str = "auto",
    manifest: Path | None = None,
    on_file: Callable[[int, int], None] = lambda done, total: None,
    budget: int | None = None,
) -> VolumeSet:
    """Open a data set or a folder of volumes.

    A ``str`` that is a data set's name, alone (``brainregionmnist3d``) or with a split
    (``brainregionmnist3d/train``), is that data set; everything else, and every ``Path``, is a
    folder. A folder of a data set's name is meant by ``./organmnist3d``; where both are there and
    the name alone does not tell, that is an error.

    A folder's volumes have one shape and one spacing once their axes point to the right, the front
    and the top (RAS+); ``.npy`` are taken to lie so. Every volume is read once, here, to check its
    intensities (:func:`choose_intensity`). A data set's are uint8
    and divided by 255; of ``intensity`` only ``percentiles`` concerns it.

    Args:
        what: Name or folder.
        option: Where the user named it, for messages: ``--real``.
        split: Of a data set named without one: ``train``, ``val``, ``test``.
        size: Of a data set's volumes, voxels per side: 28, 64.
        root: Folder of the data sets' npz files. Nothing is downloaded.
        intensity: Of a folder: ``auto``, ``percentiles`` or ``LOW,HIGH``.
        manifest: Of a folder: gives the classes in place of what lies in it, see
            :func:`prod9.data.volume_sets.listing.list_volumes`.
        on_file: Told how many files of how many have been read.
        budget: Bytes of volumes to keep in memory; :data:`MEMORY_BUDGET` when left out.

    Raises:
        Prod9Error: no such data set or folder; the data set's file is missing or broken; as
            :func:`~prod9.data.volume_sets.listing.list_volumes`,
            :func:`~prod9.data.volume_files.read.read_volume` and
            :func:`choose_intensity`; volumes differ in shape or
            spacing. The sentence names the file.
    """
    parse_intensity(intensity)
    if not str(what):  # which would be the current folder
        raise Prod9Error(f"{option} is empty; name a folder or a data set.")
    named = named_dataset(what, option)
    if named is not None:
        if manifest is not None:
            raise Prod9Error(
                f"{option} {what}: a data set has its own classes; leave the manifest out."
            )
        opened = _open_dataset(named[0], named[1] or split, size, root, option)
        return with_percentiles(opened) if intensity == "percentiles" else opened
    folder = Path(what)
    if not folder.is_dir():
        raise _no_folder(folder, option)
    volumes = list_volumes(folder, manifest)
    headers = [read_header(volume.path) for volume in volumes]
    spacing = require_one_grid(headers)
    kind = choose_intensity(intensity, [(header.path, header.dtype) for header in headers])
    read = _Reader(headers, kind, MEMORY_BUDGET if budget is None else budget)
    for index in range(len(headers)):
        read(index)
        on_file(index + 1, len(headers))
    class_names = tuple(sorted({volume.class_name for volume in volumes}))
    return VolumeSet(
        name=str(what).encode("utf-8", "replace").decode("utf-8"),
        names=tuple(volume.name for volume in volumes),
        labels=np.array([class_names.index(volume.class_name) for volume in volumes], np.int64),
        class_names=class_names,
        shape=headers[0].placement.shape,
        spacing_mm=spacing,
        intensity=kind.description,
        read=read,
        files=tuple(volume.path for volume in volumes),
    )


def observed_range(collection: VolumeSet) -> tuple[float, float]:
    """Return the lowest and the highest intensity of any voxel; reads all volumes."""
    lows: list[float] = []
    highs: list[float] = []
    for index in range(len(collection)):
        volume = collection[index]
        lows.append(float(volume.min()))
        highs.append(float(volume.max()))
    return min(lows), max(highs)


def named_dataset(what: str | Path, option: str) -> tuple[str, str | None] | None:
    """Return the data set and the split (None if left out) that ``what`` names; None for a folder.

    The rule is that of :func:`open_collection`.

    Raises:
        Prod9Error: it names a split that there is not, or a folder as well.
    """
    if isinstance(what, Path):
        return None
    name, slash, split = what.partition("/")
    if name not in _DATASETS:
        return None
    folder = Path(what).is_dir()
    if slash and split not in SPLITS:
        if folder:
            return None
        raise Prod9Error(
            f"{option} {what}: {name} has no split {split!r}, only {', '.join(SPLITS)}, "
            "and there is no such folder."
        )
    if folder:
        raise Prod9Error(
            f"{option} {what} is both a data set and a folder here; write ./{what} for the folder, "
            "or rename it to mean the data set."
        )
    return name, split or None


def _open_dataset(name: str, split: str, size: int, root: Path, option: str) -> VolumeSet:
    if split not in SPLITS:
        raise Prod9Error(
            f"{option} {name}: there is no split {split!r}; choose from {', '.join(SPLITS)}."
        )
    if size not in (28, 64):
        raise Prod9Error(f"{option} {name}: volumes have 28 or 64 voxels per side, not {size}.")
    for row in members(name):
        if row.md5 and not row.file(root, size).exists():
            raise Prod9Error(
                f"{option} {name}: there is no {row.file(root, size)}; fetch it with `prod9 data "
                f"fetch {row.flag} --size {size} --root {root}`."
            )
    config = MedMNISTSourceConfig.model_validate(
        {"dataset_name": name, "size": size, "root": root, "download": False}
    )
    return of_dataset(medmnist.load(config, split))


def _no_folder(folder: Path, option: str) -> Prod9Error:
    if folder.exists():
        return Prod9Error(f"{option} {folder} is a file; name the folder it is in.")
    near = difflib.get_close_matches(folder.parts[0] if folder.parts else "", _DATASETS, n=1)
    meant = f"did you mean the data set {near[0]}?" if near else "check the path."
    return Prod9Error(f"{option} {folder}: there is no such folder, and no such data set; {meant}")


class _Reader:
    """Index -> volume. Keeps what fits into ``budget`` bytes, reads the others each time."""

    def __init__(self, headers: list[Header], intensity: Intensity, budget: int) -> None:
        self._headers, self._intensity, self._budget = headers, intensity, budget
        self._kept: dict[int, np.ndarray] = {}

    def __call__(self, index: int) -> np.ndarray:
        index = range(len(self._headers))[index]
        volume = self._kept.get(index)
        if volume is None:
            volume = self._read(self._headers[index])
            if (len(self._kept) + 1) * volume.nbytes > self._budget:
                return volume
            self._kept[index] = volume
        return volume.copy()  # the caller's to change

    def _read(self, header: Header) -> np.ndarray:
        raw = read_volume(header.path)
        if raw.array.shape != header.placement.source_shape or raw.dtype != header.dtype:
            raise Prod9Error(f"{header.path} has changed since it was opened; start again.")
        return header.placement.apply(self._intensity.apply(raw))
