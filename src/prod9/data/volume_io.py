"""Volumes of the user's, from and to ``.nii``, ``.nii.gz`` and ``.npy``."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from nibabel.spatialimages import HeaderDataError

from prod9.data.npz import read_npy
from prod9.data.volumes import require_finite
from prod9.errors import UserError
from prod9.files import atomic_write

SUFFIXES = (".nii", ".nii.gz", ".npy")
MAX_VOXELS = 1 << 31
_MAX_RATIO = 1032  # deflate cannot shrink anything further

_BROKEN = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)
_Header: TypeAlias = Nifti1Header | Nifti2Header


@dataclass(frozen=True)
class RawVolume:
    """A volume as it was stored."""

    array: np.ndarray
    """float32 (D, H, W), in the file's intensities (after NIfTI's slope and intercept)."""
    affine: np.ndarray
    """float64 (4, 4): voxel to mm; the identity for ``.npy``."""
    dtype: np.dtype
    """Of the voxels; float32 where a NIfTI scales stored integers by a slope."""
    path: Path
    header: _Header | None = field(default=None, repr=False)
    """The NIfTI header, for writing a result with the same geometry."""


@dataclass(frozen=True)
class IntensityScale:
    """The straight line from ``low``..``high`` to 0..1, and back."""

    low: float
    high: float

    @classmethod
    def of(cls, raw: RawVolume, percentiles: tuple[float, float] | None = None) -> "IntensityScale":
        """Return the range of a volume.

        Args:
            raw: The volume.
            percentiles: Lower and upper (0..100), for any dtype; by default uint8 has the range
                0..255, as MedMNIST has, and everything else its minimum and maximum.

        """
        if percentiles is not None:
            low, high = np.percentile(raw.array, percentiles)
        elif raw.dtype == np.uint8:
            low, high = 0, 255
        else:
            low, high = raw.array.min(), raw.array.max()
        return cls(float(low), float(high))

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return intensities in [0, 1], float32; what lies outside the range is clipped.

        A constant volume becomes 0.
        """
        span = self.high - self.low
        if span <= 0:
            return np.zeros(array.shape, np.float32)
        # float64: the span of two float32 numbers may overflow float32.
        scaled = (array.astype(np.float64) - self.low) / span
        return scaled.clip(0, 1).astype(np.float32)

    def invert(self, array: np.ndarray) -> np.ndarray:
        """Return the original intensities, float32; a constant volume gets its constant back."""
        scaled = self.low + array.astype(np.float64) * (self.high - self.low)
        return scaled.astype(np.float32)


def volume_suffix(path: Path) -> str:
    """Return ``.nii``, ``.nii.gz`` or ``.npy``.

    Raises:
        UserError: the name ends in something else.

    """
    name = path.name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    raise UserError(f"{path} must end in {', '.join(SUFFIXES)}; convert it first.")


def read_volume(path: Path) -> RawVolume:
    """Read a volume; trailing axes of length 1 are dropped.

    Raises:
        UserError: the file is missing, of another kind, cut short, pickled, not 3D, empty, not of
            real numbers, or has NaN or infinite voxels; the sentence names it.

    """
    suffix = volume_suffix(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the path.")
    if suffix == ".npy":
        stored = read_npy(path)
        _require_real(stored.dtype, path)
        array, affine, dtype, header = stored, np.eye(4), stored.dtype, None
    else:
        array, affine, dtype, header = _read_nifti(path, compressed=suffix == ".nii.gz")
    array = array.reshape(_spatial(array.shape, path))
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused
        array = np.ascontiguousarray(array, dtype=np.float32)
    require_finite(array, str(path))
    return RawVolume(array, affine, dtype.newbyteorder("="), path, header)


def _read_nifti(
    path: Path, *, compressed: bool
) -> tuple[np.ndarray, np.ndarray, np.dtype, _Header]:
    try:
        image = nib.load(path)  # type: ignore[attr-defined]
        if not isinstance(image, Nifti1Image):  # Nifti2Image is one too
            raise UserError(f"{path} is no NIfTI file; convert it first.")
        header, stored_voxels = cast(_Header, image.header), cast(Any, image.dataobj)
        dtype, shape = header.get_data_dtype(), tuple(int(side) for side in image.shape)
        _require_real(dtype, path)
        _spatial(shape, path)
        stored = path.stat().st_size
        count = int(np.prod(shape, dtype=object))
        room = stored * _MAX_RATIO if compressed else stored - int(stored_voxels.offset)
        if count > MAX_VOXELS or count * dtype.itemsize > room:
            raise UserError(
                f"{path} declares {' x '.join(map(str, shape))} voxels of {dtype}, more than its "
                f"{stored} bytes can hold or prod9 reads ({MAX_VOXELS} voxels); it is cut short or "
                "damaged, copy it again."
            )
        slope, intercept = stored_voxels.slope, stored_voxels.inter
        array = np.asanyarray(stored_voxels)
        affine = np.asarray(image.affine, dtype=np.float64)
    except _BROKEN as error:
        raise UserError(f"{path} is not a readable NIfTI file ({error}); copy it again.") from error
    if not np.isfinite(affine).all():
        raise UserError(f"{path} has NaN or infinite numbers in its affine; repair its header.")
    scaled = (slope, intercept) != (1, 0)
    return array, affine, np.dtype(np.float32) if scaled else dtype, header


def _require_real(dtype: np.dtype, path: Path) -> None:
    if dtype.kind not in "biuf":
        raise UserError(f"{path} holds {dtype} voxels; prod9 reads real numbers (one grey value).")


def _spatial(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """Return the three spatial sides."""
    sides = shape
    while len(sides) > 3 and sides[-1] == 1:
        sides = sides[:-1]
    if len(sides) != 3 or min(sides) < 1:
        raise UserError(
            f"{path} has the shape {' x '.join(map(str, shape)) or '()'}; a volume has three axes, "
            "none of them empty (split a series into its volumes first)."
        )
    return sides


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
    rounded = np.rint(array.astype(np.float64)).clip(limits.min, limits.max)
    if dtype.itemsize < 8:
        return rounded.astype(dtype)
    # The largest 64-bit integers have no float64: the clip above rounds them one too high.
    highest = rounded >= float(limits.max)
    return np.where(highest, limits.max, np.where(highest, 0, rounded).astype(dtype))


def write_nifti(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray,
    dtype: np.dtype | type = np.float32,
    *,
    overwrite: bool = False,
    header: _Header | None = None,
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
        UserError: the file is there and must not be replaced, or cannot be written.

    """
    if volume_suffix(path) == ".npy":
        raise UserError(f"{path} must end in .nii or .nii.gz to be written as NIfTI.")
    _refuse_overwrite(path, overwrite)
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
    path: Path, array: np.ndarray, *, like: RawVolume | None = None, overwrite: bool = False
) -> None:
    """Write a volume (D, H, W) in the format of the path's suffix.

    Args:
        path: Ends in ``.nii``, ``.nii.gz`` or ``.npy``.
        array: Intensities, in the units wanted in the file.
        like: The source: its dtype, affine and NIfTI header are kept. Without one: the array's own
            dtype, and voxels of 1 mm.
        overwrite: Replace a file that is there.

    Raises:
        UserError: as :func:`write_nifti`.

    """
    dtype = array.dtype if like is None else like.dtype
    if volume_suffix(path) == ".npy":
        _refuse_overwrite(path, overwrite)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, cast_to(array, dtype), allow_pickle=False)
        return
    affine = np.eye(4) if like is None else like.affine
    header = None if like is None else like.header
    write_nifti(path, array, affine, dtype, overwrite=overwrite, header=header)


def _refuse_overwrite(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; pass --overwrite to replace it.")
