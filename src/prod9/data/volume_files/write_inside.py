"""A copy of the user's file in which only the voxels inside a mask are new."""

import gzip
from pathlib import Path
from typing import Any, cast

import numpy as np

from prod9.data.dataset import require_finite
from prod9.data.volume_files.npz import read_npy
from prod9.data.volume_files.read import open_nifti, read_content
from prod9.data.volume_files.stored_volume import require_real, slabs, spatial_sides, volume_suffix
from prod9.data.volume_files.write import cast_to, refuse_overwrite
from prod9.errors import Prod9Error
from prod9.files import atomic_write


def write_inside(
    path: Path,
    raw_path: Path,
    array: np.ndarray,
    inside: np.ndarray,
    *,
    overwrite: bool = False,
) -> None:
    """Write a copy of a file in which only the voxels inside a mask are new.

    The header (geometry, slope, intercept, extensions) and every stored voxel outside the mask are
    the same to the bit.

    Args:
        path: Of the copy; ends in ``.nii`` or ``.nii.gz`` if ``raw_path`` does, else in ``.npy``.
        raw_path: The file that is copied.
        array: (D, H, W), in the file's intensities (after slope and intercept), on its own grid;
            rounded and clipped to what the file can store.
        inside: bool, (D, H, W): True where ``array`` is taken.
        overwrite: Replace a file that is there.

    Raises:
        Prod9Error: as :func:`read_volume` for a ``raw_path`` that is no
            volume; the arrays have another shape; a new voxel is NaN or infinite; the file is there
            and must not be replaced, or cannot be written.
    """
    suffix, own = volume_suffix(path), volume_suffix(raw_path)
    if (suffix == ".npy") != (own == ".npy"):
        raise Prod9Error(f"{path} must end in {own}, as {raw_path} does, which it is a copy of.")
    refuse_overwrite(path, overwrite)
    if own == ".npy":
        stored = read_npy(raw_path)
        require_real(stored.dtype, raw_path)
        _replace(stored, array, inside, 1.0, 0.0, raw_path)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, stored, allow_pickle=False)
        return
    image = open_nifti(raw_path)
    proxy = cast(Any, image.dataobj)
    require_real(proxy.dtype, raw_path)
    # What is put into the voxels lands in the content.
    content, stored = read_content(raw_path, image)
    _replace(stored, array, inside, float(proxy.slope), float(proxy.inter), raw_path)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        if suffix == ".nii":
            file.write(content)
            return
        # Without name and time, the same content is the same file.
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed:
            packed.write(content)


def _replace(
    stored: np.ndarray,
    array: np.ndarray,
    inside: np.ndarray,
    slope: float,
    intercept: float,
    path: Path,
) -> None:
    """Put ``array`` into ``stored`` (the voxels as they are in the file) where ``inside``."""
    sides = spatial_sides(stored.shape, path)
    if array.shape != sides or inside.shape != sides:
        raise Prod9Error(
            f"{path} has {' x '.join(map(str, sides))} voxels, but the new ones are "
            f"{' x '.join(map(str, array.shape))} and the mask {' x '.join(map(str, inside.shape))}"
            "; give both on the file's own grid."
        )
    stored = stored[(..., *[0] * (stored.ndim - 3))]  # a view without the trailing axes of 1
    for slab in slabs(sides):
        chosen = inside[slab] != 0
        new = array[slab][chosen].astype(np.float64)
        require_finite(new, f"the new part of {path}")
        stored[slab][chosen] = cast_to((new - intercept) / slope, stored.dtype)
