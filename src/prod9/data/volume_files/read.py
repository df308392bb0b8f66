"""The user's volumes, read from ``.nii``, ``.nii.gz`` and ``.npy``."""

from pathlib import Path
from typing import Any, cast

import numpy as np
from nibabel.volumeutils import apply_read_scaling

from prod9.data.dataset import require_finite
from prod9.data.volume_files.nifti_volume import nifti_errors, open_volume, require_whole_gzip
from prod9.data.volume_files.npz import read_npy
from prod9.data.volume_files.stored_volume import (
    NiftiHeader,
    StoredVolume,
    require_file,
    require_real,
    slabs,
    spatial_sides,
    volume_suffix,
)
from prod9.errors import Prod9Error


def read_volume(path: Path) -> StoredVolume:
    """Read a volume; trailing axes of length 1 are dropped.

    Raises:
        Prod9Error: the file is missing, of another kind, cut short, pickled, not 3D, empty, not of
            real numbers, or has NaN or infinite voxels; the sentence names it.
    """
    suffix = volume_suffix(path)
    require_file(path)
    if suffix == ".npy":
        stored = read_npy(path)
        require_real(stored.dtype, path)
        array, affine, dtype, header = stored, np.eye(4), stored.dtype, None
    else:
        array, affine, dtype, header = _read_nifti(path)
    array = array.reshape(spatial_sides(array.shape, path))
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused
        array = np.ascontiguousarray(array, dtype=np.float32)
    require_finite(array, str(path))
    return StoredVolume(array, affine, dtype.newbyteorder("="), path, header)


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, np.dtype, NiftiHeader]:
    with nifti_errors(path):
        image = open_volume(path)
        proxy = cast(Any, image.dataobj)
        slope, intercept = proxy.slope, proxy.inter
        stored = np.asanyarray(proxy.get_unscaled())
        affine = np.asarray(image.affine, dtype=np.float64)
    require_whole_gzip(path, int(proxy.offset) + stored.nbytes)
    if not np.isfinite(affine).all():
        raise Prod9Error(f"{path} has NaN or infinite numbers in its affine; repair its header.")
    header = cast(NiftiHeader, image.header)
    if (slope, intercept) == (1, 0):
        return stored, affine, stored.dtype, header
    array = np.empty(stored.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # as above: refused afterwards
        for slab in slabs(stored.shape):
            array[slab] = apply_read_scaling(stored[slab], np.float64(slope), np.float64(intercept))
    return array, affine, array.dtype, header
