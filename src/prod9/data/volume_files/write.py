"""Volumes, written to ``.nii``, ``.nii.gz`` and ``.npy``."""

from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image

from prod9.data.volume_files.stored_volume import NiftiHeader, StoredVolume, slabs, volume_suffix
from prod9.errors import Prod9Error
from prod9.files import atomic_write


def cast_to(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return ``array`` as ``dtype``: rounded and clipped for integers, clipped for small floats."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return array >= 0.5
    if dtype.kind == "f":
        if dtype.itemsize < array.dtype.itemsize:
            limits = np.finfo(dtype)
            array = array.clip(limits.min, limits.max)
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    result = np.empty(array.shape, dtype)
    for slab in slabs(array.shape):
        rounded = np.rint(array[slab].astype(np.float64)).clip(limits.min, limits.max)
        # The largest 64-bit integers have no float64: the clip rounds them one too high.
        highest = rounded >= float(limits.max)
        result[slab] = np.where(highest, limits.max, np.where(highest, 0, rounded).astype(dtype))
    return result


def write_nifti(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray,
    dtype: np.dtype | type = np.float32,
    *,
    overwrite: bool = False,
    header: NiftiHeader | None = None,
) -> None:
    """Write a volume (D, H, W) as NIfTI, whole or not at all.

    Args:
        path: Ends in ``.nii`` or ``.nii.gz``.
        array: Intensities, in the units wanted in the file.
        affine: (4, 4), voxel to mm.
        dtype: Of the stored voxels; integers are rounded and clipped. What NIfTI does not know
            (bool, float16) is stored as uint8 or float32.
        overwrite: Replace a file that is there.
        header: Of the source, if there is one: its sform, qform, codes and units are kept.

    Raises:
        Prod9Error: the file is there and must not be replaced, or cannot be written.
    """
    if volume_suffix(path) == ".npy":
        raise Prod9Error(f"{path} must end in .nii or .nii.gz to be written as NIfTI.")
    refuse_overwrite(path, overwrite)
    dtype = np.dtype(dtype)
    dtype = {"bool": np.dtype(np.uint8), "float16": np.dtype(np.float32)}.get(dtype.name, dtype)
    kind: Any = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    own = None if header is None else header.copy()
    if own is not None:
        own.set_data_dtype(dtype)
        own["cal_min"] = own["cal_max"] = 0  # the source's display window need not fit
    # The dtype is given twice: nibabel asks for it where the voxels are 64-bit integers.
    image = kind(cast_to(array, dtype), affine, own, dtype=dtype)
    if own is None:
        image.set_sform(affine, code="aligned")
        image.set_qform(affine, code="aligned")
        image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    with atomic_write(path) as temporary:
        image.to_filename(temporary)


def write_volume(
    path: Path, array: np.ndarray, *, like: StoredVolume | None = None, overwrite: bool = False
) -> None:
    """Write a volume (D, H, W) in the format of the path's suffix.

    Args:
        path: Ends in ``.nii``, ``.nii.gz`` or ``.npy``.
        array: Intensities, in the units wanted in the file.
        like: The source: its dtype, affine and NIfTI header are kept. Without one: the array's own
            dtype, and voxels of 1 mm.
        overwrite: Replace a file that is there.

    Raises:
        Prod9Error: as :func:`write_nifti`.
    """
    dtype = array.dtype if like is None else like.dtype
    if volume_suffix(path) == ".npy":
        refuse_overwrite(path, overwrite)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, cast_to(array, dtype), allow_pickle=False)
        return
    affine, header = (np.eye(4), None) if like is None else (like.affine, like.header)
    write_nifti(path, array, affine, dtype, overwrite=overwrite, header=header)


def refuse_overwrite(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file that is there, unless the user has asked for it.

    Raises:
        Prod9Error: it is there, and ``overwrite`` is not set.
    """
    if path.exists() and not overwrite:
        raise Prod9Error(f"{path} exists; pass --overwrite to replace it.")
