"""A folder of volumes as a set: one grid, one intensity rule."""

from pathlib import Path

import numpy as np

from prod9.data.geometry import Placement
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import volume_suffix
from prod9.data.volume_sets.intensity_range import choose_intensity
from prod9.data.volume_sets.listing import list_volumes
from prod9.data.volume_sets.volume_set import VolumeSet, kept_in_memory
from prod9.errors import Prod9Error

# Headers are rounded: spacings of one set may differ by this share.
SPACING_TOLERANCE = 0.01


def open_folder(folder: Path, intensity: str = "auto") -> VolumeSet:
    """Open a folder of volumes (see :func:`~prod9.data.volume_sets.listing.list_volumes`).

    All volumes have one shape and one spacing once their axes point to the right, the front and
    the top (RAS+); ``.npy`` files are in this orientation and have no spacing. Each volume is read
    once here, to check its grid and its intensities
    (:func:`~prod9.data.volume_sets.intensity_range.choose_intensity`).

    Raises:
        Prod9Error: as ``list_volumes``, :func:`~prod9.data.volume_files.read.read_volume` and
            ``choose_intensity``; or the volumes differ in shape or spacing. The sentence names the
            file.
    """
    volumes = list_volumes(folder)
    first = read_volume(volumes[0].path)
    rule = choose_intensity(intensity, first)
    shape = Placement.of(first.array.shape, first.affine, None, str(first.path)).shape
    spacings: dict[Path, tuple[float, float, float]] = {}

    def read(index: int) -> np.ndarray:
        raw = read_volume(volumes[index].path)
        placement = Placement.of(raw.array.shape, raw.affine, None, str(raw.path))
        if placement.shape != shape:
            raise Prod9Error(
                f"{first.path} has {_times(shape)} voxels but {raw.path} has "
                f"{_times(placement.shape)} (axes right, front, up); resample them to one grid "
                "first."
            )
        if volume_suffix(raw.path) != ".npy":
            spacings[raw.path] = placement.spacing_mm
            other, usual = next(iter(spacings.items()))
            if not np.allclose(placement.spacing_mm, usual, rtol=SPACING_TOLERANCE, atol=0):
                raise Prod9Error(
                    f"{other} has voxels of {_times(usual)} mm but {raw.path} of "
                    f"{_times(placement.spacing_mm)} mm (right, front, up); resample them to one "
                    "spacing first."
                )
        return placement.apply(rule.apply(raw))

    cached = kept_in_memory(read, shape)
    for index in range(len(volumes)):
        cached(index)
    class_names = tuple(sorted({volume.class_name for volume in volumes}))
    return VolumeSet(
        name=str(folder).encode("utf-8", "replace").decode("utf-8"),
        names=tuple(volume.name for volume in volumes),
        labels=np.array([class_names.index(volume.class_name) for volume in volumes], np.int64),
        class_names=class_names,
        shape=shape,
        spacing_mm=spacings[first.path] if len(spacings) == len(volumes) else None,
        intensity=rule.description,
        read=cached,
        files=tuple(volume.path for volume in volumes),
    )


def _times(numbers: tuple[int, ...] | tuple[float, ...]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
