"""A folder of volumes as a set: which files, of which classes; one grid, one intensity rule."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from prod9.data.geometry import Placement
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import SUFFIXES, TOKENS, times, volume_suffix
from prod9.data.volume_sets.intensity_range import choose_intensity
from prod9.data.volume_sets.volume_set import ONE_CLASS, VolumeSet, kept_in_memory
from prod9.errors import Prod9Error

SPACING_TOLERANCE = 0.01
"""Headers are rounded: spacings of one set may differ by this share."""
MANIFESTS = ("manifest.json", "manifest.csv")
# Volumes in formats that are not read: skipped, they would be missing from the metrics.
_FOREIGN = (
    *(".mgz", ".mgh", ".nrrd", ".nhdr", ".dcm", ".ima", ".mha", ".mhd", ".mnc", ".gipl"),
    *(".hdr", ".img", ".img.gz", ".nii.bz2", ".nii.zst", ".npz", ".tif", ".tiff", ".h5", ".hdf5"),
)
_DEPTH = 3
"""The folder, its class sub-folders, and one more so that deeper volumes are reported."""


def open_folder(folder: Path, intensity: str = "auto") -> VolumeSet:
    """Open a folder of volumes (see :func:`list_volumes`).

    All volumes have one shape and one spacing once their axes point to the right, the front and
    the top (RAS+); ``.npy`` files are in this orientation and have no spacing. Each volume is read
    once here, to check its grid and its intensities
    (:func:`~prod9.data.volume_sets.intensity_range.choose_intensity`).

    Raises:
        Prod9Error: a volume that cannot be read or does not fit the others. The sentence names the
            file.
    """
    listed = list_volumes(folder)
    paths = [path for path, _ in listed.values()]
    first = read_volume(paths[0])
    rule = choose_intensity(intensity, first)
    shape = Placement.of(first.array.shape, first.affine, None, str(first.path)).shape
    spacings: dict[Path, tuple[float, float, float]] = {}

    def read(index: int) -> np.ndarray:
        raw = read_volume(paths[index])
        placement = Placement.of(raw.array.shape, raw.affine, None, str(raw.path))
        if placement.shape != shape:
            raise Prod9Error(
                f"{first.path} has {times(shape)} voxels but {raw.path} has "
                f"{times(placement.shape)} (axes right, front, up); resample them to one grid "
                "first."
            )
        if volume_suffix(raw.path) != ".npy":
            spacings[raw.path] = placement.spacing_mm
            other, usual = next(iter(spacings.items()))
            if not np.allclose(placement.spacing_mm, usual, rtol=SPACING_TOLERANCE, atol=0):
                raise Prod9Error(
                    f"{other} has voxels of {times(usual)} mm but {raw.path} of "
                    f"{times(placement.spacing_mm)} mm (right, front, up); resample them to one "
                    "spacing first."
                )
        return placement.apply(rule.apply(raw))

    cached = kept_in_memory(read, shape)
    for index in range(len(paths)):
        cached(index)
    classes = [class_name for _, class_name in listed.values()]
    class_names = tuple(sorted(set(classes)))
    return VolumeSet(
        name=str(folder).encode("utf-8", "replace").decode("utf-8"),
        names=tuple(listed),
        labels=np.array([class_names.index(name) for name in classes], np.int64),
        class_names=class_names,
        shape=shape,
        spacing_mm=spacings[first.path] if len(spacings) == len(paths) else None,
        intensity=rule.description,
        read=cached,
        files=tuple(paths),
    )


def list_volumes(folder: Path) -> dict[str, tuple[Path, str]]:
    """Find the volumes of a folder and their classes: name -> (path, class), sorted by name.

    A name is the path inside the folder without the suffix: ``0001``, or ``liver/0001``.

    Volumes are the ``.nii``, ``.nii.gz`` and ``.npy`` files. Classes come from ``manifest.json``
    (as ``prod9 generate`` writes it) or ``manifest.csv`` (columns ``file`` and ``class``); without
    a manifest from sub-folders (``liver/0001.nii.gz``); without those, all volumes are of one
    class. Hidden files and files that are no volumes are ignored.

    Raises:
        Prod9Error: no volume, a volume of a format that is not read, volumes at several depths,
            two of one name, or a manifest that does not fit the files.
    """
    files: dict[str, Path] = {}
    try:
        for path in _walk(folder, _DEPTH):
            low = path.name.lower()
            if low.endswith(SUFFIXES):
                files[path.relative_to(folder).as_posix()] = path
            elif low.endswith(_FOREIGN) and not low.endswith(TOKENS):
                raise Prod9Error(
                    f"{path} is of a format that prod9 does not read here; convert it to .nii.gz, "
                    "or move it out of the folder."
                )
    except OSError as error:
        raise Prod9Error(f"{folder} cannot be read ({error}); check the path.") from error
    if not files:
        raise Prod9Error(
            f"{folder} holds no volume ({', '.join(SUFFIXES)}), neither itself nor in class "
            "sub-folders; name the folder the volumes are in."
        )
    manifests = [folder / name for name in MANIFESTS if (folder / name).is_file()]
    if len(manifests) > 1:
        raise Prod9Error(f"{folder} has both {' and '.join(MANIFESTS)}; remove one.")
    if manifests:
        classes = _classes_of_manifest(manifests[0], folder, files)
    else:
        classes = _classes_of_sub_folders(folder, files)
    found: dict[str, tuple[Path, str]] = {}
    for file, path in files.items():
        name = file[: -len(volume_suffix(path))]
        if name in found:
            raise Prod9Error(
                f"{found[name][0]} and {path} have the same name but for the suffix; rename or "
                "remove one."
            )
        found[name] = path, classes[file]
    return dict(sorted(found.items()))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            yield path
        elif depth > 1:
            yield from _walk(path, depth - 1)


def _classes_of_sub_folders(folder: Path, files: dict[str, Path]) -> dict[str, str]:
    flat = [file for file in files if "/" not in file]
    if len(flat) == len(files):
        return dict.fromkeys(files, ONE_CLASS[0])
    odd = flat or [file for file in files if file.count("/") > 1]
    if odd:
        raise Prod9Error(
            f"{folder / odd[0]} lies beside or below the class sub-folders of {folder}; prod9 "
            "reads FOLDER/*.nii.gz or FOLDER/CLASS/*.nii.gz: move it, or add a manifest.csv."
        )
    return {file: file.partition("/")[0] for file in files}


def _classes_of_manifest(manifest: Path, folder: Path, files: dict[str, Path]) -> dict[str, str]:
    classes: dict[str, str] = {}
    try:
        text = manifest.read_text(encoding="utf-8-sig")
        if manifest.suffix == ".json":
            rows: list[Any] = json.loads(text)["samples"]
        else:
            reader = csv.DictReader(text.splitlines(), strict=True, skipinitialspace=True)
            reader.fieldnames = [column.strip() for column in reader.fieldnames or ()]
            rows = list(reader)
        for row in rows:
            name, class_name = row["file"], row["class"]
            if not (isinstance(name, str) and isinstance(class_name, str) and class_name.strip()):
                raise ValueError(f"{row} lacks a file or a class")
            file = PurePosixPath(name.strip()).as_posix()
            if None in row:
                raise ValueError(f"the entry of {file!r} has more columns than the first line")
            if file not in files:
                raise ValueError(f"{folder} has no volume {file!r}")
            if file in classes:
                raise ValueError(f"{file!r} is named twice")
            classes[file] = class_name.strip()
        if missing := [path for file, path in files.items() if file not in classes]:
            raise ValueError(f"it has no entry for {missing[0]}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        wanted = "the columns file and class, separated by commas"
        if manifest.suffix == ".json":
            wanted = 'a list "samples" of objects with "file" and "class"'
        raise Prod9Error(
            f"{manifest} cannot be used ({type(error).__name__}: {error}); it needs {wanted}, one "
            "entry for each volume."
        ) from error
    return classes
