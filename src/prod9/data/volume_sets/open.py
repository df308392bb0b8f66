"""Data sets, folders, arrays and preprocessed scans, opened as a :class:`VolumeSet`."""

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
from prod9.data.brats.cases import MODALITIES
from prod9.data.brats.scans import ScanSet
from prod9.data.medmnist import spacing_of
from prod9.data.medmnist_table import members
from prod9.data.splits import SPLITS, Split
from prod9.data.volume_files.stored_volume import StoredVolume, require_real
from prod9.data.volume_sets.folder import SPACING_TOLERANCE, open_folder
from prod9.data.volume_sets.intensity_range import PERCENTILES, choose_intensity, parse_intensity
from prod9.data.volume_sets.volume_set import ONE_CLASS, VolumeSet, of_volume_set
from prod9.data.volumes import require_finite
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
    parse_intensity(intensity)
    if isinstance(what, (np.ndarray, Tensor)):
        return _of_array(np.asarray(what), name, intensity)
    dataset = named_dataset(what)
    if dataset is not None:
        opened = _open_dataset(*dataset, size, root)
        if intensity != "percentiles":
            return opened
        read = opened.read

        def scaled(index: int) -> np.ndarray:
            return PERCENTILES.apply(StoredVolume(read(index), np.eye(4), np.dtype("f4"), Path()))

        return replace(opened, intensity=PERCENTILES.description, read=scaled)
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


def scans_collection(scans: ScanSet, name: str) -> VolumeSet:
    """Return every modality of every scan, on the scans' common grid.

    The class of a volume is its modality, its name is ``CASE_T1``. Volumes are read from the cache
    each time.

    Raises:
        Prod9Error: there are no scans.
    """
    if not scans.scans:
        raise Prod9Error(f"{name} has no scans; name a folder or split that has some.")
    each = len(MODALITIES)
    spacings = np.array([scan.spacing_mm for scan in scans.scans])
    alike = np.allclose(spacings, spacings[0], rtol=SPACING_TOLERANCE, atol=0)
    return VolumeSet(
        name=name,
        names=tuple(f"{scan.name}_{modality}" for scan in scans.scans for modality in MODALITIES),
        labels=np.tile(np.arange(each, dtype=np.int64), len(scans)),
        class_names=tuple(MODALITIES),
        shape=scans.shape,
        spacing_mm=scans.scans[0].spacing_mm if alike else None,
        intensity="percentiles of each volume's foreground, as the scans were preprocessed",
        read=lambda index: scans.whole(index // each, index % each),
    )


def _open_dataset(name: str, split: Split, size: int, root: Path) -> VolumeSet:
    if size not in (28, 64):
        raise Prod9Error(f"{name}: volumes have 28 or 64 voxels per side, not {size}.")
    for row in members(name):
        if row.md5 and not row.file(root, size).exists():
            raise Prod9Error(
                f"{name}: there is no {row.file(root, size)}; fetch it with `prod9 data fetch "
                f"{row.flag} --size {size} --root {root}`."
            )
    config = MedMNISTSourceConfig.model_validate(
        {"dataset_name": name, "size": size, "root": root, "download": False}
    )
    return of_volume_set(medmnist.load(config, split), f"{name}/{split}", spacing_of(config))


def _of_array(array: np.ndarray, name: str, intensity: str) -> VolumeSet:
    if array.ndim == 5 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 4 or array.size == 0:
        raise Prod9Error(f"{name} has the shape {array.shape}; volumes are (N, D, H, W).")
    require_real(array.dtype, Path(name))

    def stored(index: int) -> StoredVolume:
        volume = np.ascontiguousarray(array[index], dtype=np.float32)
        require_finite(volume, f"{name}[{index}]")
        return StoredVolume(volume, np.eye(4), array.dtype, Path(f"{name}[{index}]"))

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
