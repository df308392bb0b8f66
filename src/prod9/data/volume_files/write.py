"""Volumes, written to ``.nii``, ``.nii.gz`` and ``.npy``."""

import gzip
from pathlib import Path
from typing import Any, cast

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image

from prod9.data.volume_files.npz import read_npy
from prod9.data.volume_files.read import open_nifti, read_content
from prod9.data.volume_files.stored_volume import (
    NiftiHeader,
    StoredVolume,
    require_finite,
    require_real,
    slabs,
    spatial_sides,
    times,
    volume_suffix,
)
from prod9.errors import Prod9Error
from prod9.files import atomic_write


def cast_to(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return ``array`` as ``dtype``: rounded and clipped for integers, clipped for small floats."""
    if dtype.kind == "b":
        return array >= 0.5
    if dtype.kind == "f":
        if dtype.itemsize < array.dtype.itemsize:
            limits = np.finfo(dtype)
            array = array.clip(limits.min, limits.max)
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    result = np.empty(array.shape, dtype)
    highest = np.nextafter(float(limits.max) + 1, 0)  # 2**63 - 1 itself has no float64
    for slab in slabs(array.shape):
        result[slab] = np.rint(array[slab].astype(np.float64)).clip(limits.min, highest)
    return result


def write_nifti(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray,
    dtype: np.dtype | type = np.float32,
    *,
    overwrite: bool = False,
    header: NiftiHeader | None = None,
    durable: bool = True,
) -> None:
    """Write a volume (D, H, W) as NIfTI, whole or not at all.

    Args:
        path: ends in ``.nii`` or ``.nii.gz``.
        array: in the units wanted in the file.
        affine: (4, 4), voxel to mm.
        dtype: of the stored voxels; integers are rounded and clipped. Types that NIfTI does not
            have (bool, float16) are stored as uint8 or float32.
        overwrite: replace an existing file, which is refused otherwise.
        header: of the source: its sform, qform, codes and units are kept.
        durable: wait until the file is on the disk (:func:`prod9.files.atomic_write`).
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
    with atomic_write(path, durable=durable) as temporary:
        image.to_filename(temporary)


def write_volume(
    path: Path, array: np.ndarray, *, like: StoredVolume | None = None, overwrite: bool = False
) -> None:
    """Write a volume (D, H, W) in the format of the path's suffix, see :func:`write_nifti`.

    Dtype, affine and NIfTI header of the source ``like`` are kept; without one, the array's own
    dtype and voxels of 1 mm are written.
    """
    dtype = array.dtype if like is None else like.dtype
    if volume_suffix(path) == ".npy":
        refuse_overwrite(path, overwrite)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, cast_to(array, dtype), allow_pickle=False)
        return
    affine, header = (np.eye(4), None) if like is None else (like.affine, like.header)
    write_nifti(path, array, affine, dtype, overwrite=overwrite, header=header)


def write_inside(
    path: Path, raw_path: Path, array: np.ndarray, inside: np.ndarray, *, overwrite: bool = False
) -> None:
    """Write a copy of a file in which only the voxels inside a mask are new.

    The header (geometry, slope, intercept, extensions) and every stored voxel outside the mask are
    the same to the bit.

    Args:
        path: of the copy; NIfTI if ``raw_path`` is, else ``.npy``.
        raw_path: the file that is copied.
        array: (D, H, W), in the file's intensities (after slope and intercept), on its own grid;
            rounded and clipped to what the file can store.
        inside: bool, (D, H, W): True where ``array`` is taken.
        overwrite: replace an existing file, which is refused otherwise.
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
        content, stored = read_content(raw_path, image)  # ``stored`` is a view of ``content``
        proxy = cast(Any, image.dataobj)
        slope, intercept = float(proxy.slope), float(proxy.inter)
    require_real(stored.dtype, raw_path)
    sides = spatial_sides(stored.shape, raw_path)
    if array.shape != sides or inside.shape != sides:
        raise Prod9Error(
            f"{raw_path} has {times(sides)} voxels, but the new ones are {times(array.shape)} and "
            f"the mask {times(inside.shape)}; give both on the file's own grid."
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


def refuse_overwrite(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file that exists, unless the user has asked for it."""
    if path.exists() and not overwrite:
        raise Prod9Error(f"{path} exists; pass --overwrite to replace it.")
