"""Data sets, folders and arrays, opened as a :class:`VolumeSet`."""

import difflib
import os
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, cast, get_args

import numpy as np
from torch import Tensor

from prod9.config import MedMNISTSourceConfig
from prod9.config.data import MedMNISTName
from prod9.data import medmnist
from prod9.data.splits import SPLITS, Split
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.data.volume_sets.folder import open_folder
from prod9.data.volume_sets.intensity_range import choose_intensity
from prod9.data.volume_sets.volume_set import ONE_CLASS, VolumeSet, of_dataset
from prod9.errors import Prod9Error

Volumes: TypeAlias = str | os.PathLike[str] | np.ndarray | Tensor | VolumeSet
"""What can be opened: the name of a data set, a folder, volumes in memory, or a set."""
_DATASETS: tuple[str, ...] = get_args(MedMNISTName)


def open_volumes(
    what: Volumes,
    *,
    intensity: str = "auto",
    size: int = 28,
    root: Path = Path("data/medmnist3d"),
    name: str = "array",
) -> VolumeSet:
    """Open a data set, a folder of volumes, or an array.

    A ``str`` that is a data set's name, alone (``brainregionmnist3d``: its test split) or with a
    split (``brainregionmnist3d/train``), is that data set; every other ``str``, and every ``Path``,
    is a folder (:func:`~prod9.data.volume_sets.folder.open_folder`). Write ``./organmnist3d`` for a
    folder of a data set's name. Volumes of a data set are uint8 and divided by 255, whatever the
    intensity, unless it is ``percentiles``.

    Args:
        what: name, folder, volumes (N, D, H, W) or (N, 1, D, H, W) in memory, or a set, which is
            returned as it is.
        intensity: ``auto``, ``percentiles`` or ``LOW,HIGH``.
        size: voxels per side of a data set: 28 or 64.
        root: folder of the data sets' npz files. Nothing is downloaded.
        name: of an array, for tables.

    Raises:
        Prod9Error: no such data set or folder, or it cannot be read, or its intensities do not fit.
    """
    if isinstance(what, VolumeSet):
        return what
    if isinstance(what, (np.ndarray, Tensor)):
        return _of_array(np.asarray(what), name, intensity)
    dataset = named_dataset(what)
    if dataset is not None:
        return _open_dataset(*dataset, size, root, intensity)
    folder = Path(what)
    if not str(what) or not folder.is_dir():
        near = difflib.get_close_matches(str(what).split("/")[0], _DATASETS, n=1)
        meant = f"did you mean the data set {near[0]}, or {near[0]}/val?" if near else "check it."
        raise Prod9Error(f"{str(what)!r} is neither a folder nor a data set; {meant}")
    return open_folder(folder, intensity)


def named_dataset(what: object) -> tuple[str, Split] | None:
    """Return the data set and the split (``test`` if left out) that ``what`` names, if it does.

    Raises:
        Prod9Error: there is a folder of this name too.
    """
    name, slash, split = what.partition("/") if isinstance(what, str) else ("", "", "")
    if name not in _DATASETS or (slash and split not in SPLITS):
        return None
    if Path(str(what)).is_dir():
        raise Prod9Error(
            f"{what} is both a data set and a folder here; write ./{what} for the folder, or "
            "rename it to mean the data set."
        )
    return name, cast(Split, split or "test")


def _open_dataset(name: str, split: Split, size: int, root: Path, intensity: str) -> VolumeSet:
    if size not in (28, 64):
        raise Prod9Error(f"{name}: volumes have 28 or 64 voxels per side, not {size}.")
    config = MedMNISTSourceConfig.model_validate(
        {"dataset_name": name, "size": size, "root": root, "download": False}
    )
    volumes = of_dataset(medmnist.load(config, split))

    def stored(index: int) -> StoredVolume:
        return StoredVolume.of(volumes[index], Path(volumes.names[index]))

    rule = choose_intensity(intensity, stored(0))

    def read(index: int) -> np.ndarray:
        return rule.apply(stored(index))

    scaled = replace(volumes, intensity=rule.description, read=read)
    return scaled if intensity == "percentiles" else volumes


def _of_array(array: np.ndarray, name: str, intensity: str) -> VolumeSet:
    if array.ndim == 5 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 4 or array.size == 0:
        raise Prod9Error(f"{name} has the shape {array.shape}; volumes are (N, D, H, W).")

    def stored(index: int) -> StoredVolume:
        return StoredVolume.of(array[index], Path(f"{name}[{index}]"))

    rule = choose_intensity(intensity, stored(0))
    for index in range(len(array)):
        rule.apply(stored(index))
    d, h, w = array.shape[1:]
    digits = len(str(len(array)))
    return VolumeSet(
        name=name,
        names=tuple(f"{index:0{digits}d}" for index in range(len(array))),
        labels=np.zeros(len(array), np.int64),
        class_names=ONE_CLASS,
        shape=(d, h, w),
        spacing_mm=None,
        intensity=rule.description,
        read=lambda index: rule.apply(stored(index)),
    )
