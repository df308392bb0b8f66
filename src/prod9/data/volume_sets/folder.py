"""A folder of volumes as a set: one grid, one intensity rule."""

from pathlib import Path

import numpy as np

from prod9.data.geometry import Placement
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume, volume_suffix
from prod9.data.volume_sets.intensity_range import choose_intensity
from prod9.data.volume_sets.listing import list_volumes
from prod9.data.volume_sets.volume_set import VolumeSet, kept_in_memory
from prod9.errors import Prod9Error

# Headers are rounded: spacings of one set may differ by this share.
SPACING_TOLERANCE = 0.01


def open_folder(folder: Path, intensity: str = "auto") -> VolumeSet:
    """Open a folder of volumes (see :func:`~prod9.data.volume_sets.listing.list_volumes`).

    All volumes have one shape and one spacing once their axes point to the right, the front and
    the top (RAS+); ``.npy`` files are taken to lie so and have no spacing. Each volume is read
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
    shape = _upright(first).shape

    def read(index: int) -> np.ndarray:
        raw = read_volume(volumes[index].path)
        placement = _upright(raw)
        if placement.shape != shape:
            raise Prod9Error(
                f"{first.path} has {_times(shape)} voxels but {raw.path} has "
                f"{_times(placement.shape)} (axes right, front, up); resample them to one grid "
                "first."
            )
        if volume_suffix(raw.path) != ".npy":
            spacings[raw.path] = placement.spacing_mm
            _require_one_spacing(spacings, raw.path)
        return placement.apply(rule.apply(raw))

    spacings: dict[Path, tuple[float, float, float]] = {}
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


def _upright(raw: StoredVolume) -> Placement:
    """Return the way to RAS+ axes, without resampling."""
    return Placement.of(raw.array.shape, raw.affine, None, str(raw.path))


def _require_one_spacing(spacings: dict[Path, tuple[float, float, float]], path: Path) -> None:
    first, own = next(iter(spacings.items()))
    apart = np.abs(np.array(spacings[path]) - own)
    if (apart > SPACING_TOLERANCE * np.array(own)).any():
        raise Prod9Error(
            f"{first} has voxels of {_times(own)} mm but {path} of {_times(spacings[path])} mm "
            "(right, front, up); resample them to one spacing first."
        )


def _times(numbers: tuple[int, ...] | tuple[float, ...]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
