"""The user's volumes, read from files of any known format and from folders of DICOM slices."""

import gzip
import math
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from nibabel.volumeutils import apply_read_scaling

from prod9.data.volume_files.dicom import DICOM_SUFFIXES, read_series
from prod9.data.volume_files.itk import read_itk_file
from prod9.data.volume_files.npz import npz_headers, read_npy, read_npz_array
from prod9.data.volume_files.stored_volume import (
    ITK_SUFFIXES,
    READ_SUFFIXES,
    StoredVolume,
    number_of_part,
    reading,
    require_real,
    slabs,
    times,
    volume_suffix,
)
from prod9.errors import Prod9Error
from prod9.runtime.memory_limits import require_memory
from prod9.shapes import MAX_VOXELS

NiftiImage: TypeAlias = Nifti1Image | Nifti2Image

_PIECE = 1 << 20


def read_volume(path: Path, part: str = "") -> StoredVolume:
    """Read a volume; trailing axes of length 1 are dropped.

    Args:
        path: a file with one of ``READ_SUFFIXES``, or the folder of a DICOM series.
        part: which volume of those in ``path``; empty where it holds one. In ``.npz`` the key of an
            array; in a 4D file the volume's number from 0; in a folder the SeriesInstanceUID.

    Raises:
        Prod9Error: the file is missing, damaged, of another kind, not 3D, empty, not of finite real
            numbers, or too large; ``part`` is not in it; SimpleITK is needed and not installed. The
            sentence names the file.
    """
    if path.is_dir():
        return read_series(path, part)
    if not path.exists():
        raise Prod9Error(f"{path} does not exist; check the path.")
    if path.suffix.lower() in DICOM_SUFFIXES:
        raise Prod9Error(f"{path} is one slice of a DICOM series; give its folder, {path.parent}.")
    suffix = volume_suffix(path, READ_SUFFIXES)
    if suffix in ITK_SUFFIXES:
        return read_itk_file(path, part)
    if suffix == ".npz":
        keys = [key.removesuffix(".npy") for key in npz_headers(path)]
        key = part or (keys[0] if len(keys) == 1 else "")
        if key not in keys:
            raise Prod9Error(
                f"{path} has {len(keys)} arrays and none of the key '{part}'; choose one of: "
                f"{', '.join(keys[:9])}."
            )
        return StoredVolume.of(read_npz_array(path, key), path)
    if suffix == ".npy":
        if part:
            raise Prod9Error(f"{path} holds one array and no part '{part}'; leave the part out.")
        return StoredVolume.of(read_npy(path), path)
    image = open_nifti(path)
    number = number_of_part(tuple(map(int, image.shape)), part, path)
    array, affine = read_nifti(path, image, number=number)
    return StoredVolume.of(array, path, affine, cast(Any, image.header))


def open_nifti(path: Path) -> NiftiImage:
    """Read the header of a ``.nii`` or ``.nii.gz``, without its voxels."""
    with reading(path):
        with _open_unpacked(path) as file:
            size = file.read(4)  # of the header: 348 bytes in NIfTI-1, 540 in NIfTI-2
        second = 540 in (int.from_bytes(size, "little"), int.from_bytes(size, "big"))
        # Not nibabel.load, which may take the file for CIFTI and parse the XML in it.
        kind: Any = Nifti2Image if second else Nifti1Image
        return kind.from_filename(path)


def read_nifti(
    path: Path, image: NiftiImage, most: int = MAX_VOXELS, number: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels and affine, float64 (4, 4), of ``image``, which is the header of ``path``.

    Voxels are float32 after slope and intercept, or as stored if the file has none; all of them, or
    (D, H, W) of the volume of that ``number`` on the fourth axis.
    """
    proxy = cast(Any, image.dataobj)
    require_real(proxy.dtype, path)
    stored = read_content(path, image, most)[1]
    if number is not None and stored.ndim > 3:
        stored = stored[(..., number, *[0] * (stored.ndim - 4))]
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise Prod9Error(f"{path} has NaN or infinite numbers in its affine; repair its header.")
    slope, intercept = np.float64(proxy.slope), np.float64(proxy.inter)
    if (slope, intercept) == (1, 0):
        return stored, affine
    array = np.empty(stored.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused afterwards
        for slab in slabs(stored.shape):
            array[slab] = apply_read_scaling(stored[slab], slope, intercept)
    return array, affine


def read_content(
    path: Path, image: NiftiImage, most: int = MAX_VOXELS
) -> tuple[bytearray, np.ndarray]:
    """Return a NIfTI file's bytes, unpacked, and the voxels as stored: a view of the bytes.

    Raises:
        Prod9Error: the header declares more than ``most`` voxels or more than the memory holds; the
            file is cut short or damaged.
    """
    proxy = cast(Any, image.dataobj)
    shape = tuple(map(int, proxy.shape))
    count = math.prod(shape)
    if count > most:
        raise Prod9Error(
            f"{path} declares {times(shape)} voxels, more than prod9 reads ({most}); it is "
            "damaged, or has to be cut into pieces."
        )
    with reading(path):
        size = int(proxy.offset) + count * proxy.dtype.itemsize
        require_memory(size + 4 * count, str(path))  # and as float32
        content = bytearray()  # grows by what is there, whatever the header declares
        with _open_unpacked(path) as file:
            while len(content) < size and (piece := file.read(min(_PIECE, size - len(content)))):
                content += piece
            while path.suffix.lower() == ".gz" and file.read(_PIECE):
                pass  # to the end, where gzip compares the checksum
        if len(content) < size:
            raise EOFError("it is cut short")
        return content, np.ndarray(shape, proxy.dtype, content, int(proxy.offset), order="F")


def _open_unpacked(path: Path) -> Any:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")
