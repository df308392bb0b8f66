"""A copy of the user's file in which only the voxels inside a mask are new."""

import gzip
from pathlib import Path
from typing import Any, cast

import numpy as np

from prod9.data.volume_files.npz import read_npy
from prod9.data.volume_files.read import open_nifti, read_content
from prod9.data.volume_files.stored_volume import require_real, slabs, spatial_sides, volume_suffix
from prod9.data.volume_files.write import cast_to, refuse_overwrite
from prod9.data.volumes import require_finite
from prod9.errors import Prod9Error
from prod9.files import atomic_write


def write_inside(
    path: Path, raw_path: Path, array: np.ndarray, inside: np.ndarray, *, overwrite: bool = False
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
        Prod9Error: ``raw_path`` is no volume; the arrays have another shape; a new voxel is NaN or
            infinite; ``path`` is there and must not be replaced, or cannot be written.
    """
    suffix, own = volume_suffix(path), volume_suffix(raw_path)
    if (suffix == ".npy") != (own == ".npy"):
        raise Prod9Error(f"{path} must end in {own}, as {raw_path} does, which it is a copy of.")
    refuse_overwrite(path, overwrite)
    content, slope, intercept = bytearray(), 1.0, 0.0
    if own == ".npy":
        stored = read_npy(raw_path)
    else:
        image = open_nifti(raw_path)
        # A view: what is put into the voxels lands in the content.
        content, stored = read_content(raw_path, image)
        proxy = cast(Any, image.dataobj)
        slope, intercept = float(proxy.slope), float(proxy.inter)
    require_real(stored.dtype, raw_path)
    sides = spatial_sides(stored.shape, raw_path)
    if array.shape != sides or inside.shape != sides:
        raise Prod9Error(
            f"{raw_path} has {_by(sides)} voxels, but the new ones are {_by(array.shape)} and the "
            f"mask {_by(inside.shape)}; give both on the file's own grid."
        )
    voxels = stored[(..., *[0] * (stored.ndim - 3))]  # a view without the trailing axes of 1
    for slab in slabs(sides):
        chosen = inside[slab] != 0
        new = array[slab][chosen].astype(np.float64)
        require_finite(new, f"the new part of {raw_path}")
        voxels[slab][chosen] = cast_to((new - intercept) / slope, stored.dtype)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        if suffix == ".npy":
            np.save(file, stored, allow_pickle=False)
        elif suffix == ".nii":
            file.write(content)
        else:  # without name and time, the same content is the same file
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed:
                packed.write(content)


def _by(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
