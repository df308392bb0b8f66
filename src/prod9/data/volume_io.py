"""Volumes of the user's, from and to ``.nii``, ``.nii.gz`` and ``.npy``."""

import gzip
import math
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from nibabel.volumeutils import apply_read_scaling

from prod9.data.limits import DEFLATE_RATIO, require_memory
from prod9.data.nifti_header import BROKEN, NiftiImage, is_gzip, open_nifti, unreadable
from prod9.data.npz import read_npy
from prod9.data.volumes import require_finite
from prod9.errors import UserError
from prod9.files import atomic_write
from prod9.shapes import MAX_VOXELS

SUFFIXES = (".nii", ".nii.gz", ".npy")
# Behind the last voxel of a packed file nothing follows, and zeros without end pack well.
_MOST_BEHIND_VOXELS = 1 << 20
# Where float64 is needed, it is for this many voxels at a time (32 MiB), not for a whole volume.
_SLAB = 1 << 22

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


def slabs(shape: tuple[int, ...]) -> Generator[slice]:
    """Give slices of the first axis that hold about ``_SLAB`` voxels each."""
    thickness = max(1, _SLAB // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], thickness):
        yield slice(start, start + thickness)


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
    _require_file(path)
    if suffix == ".npy":
        stored = read_npy(path)
        _require_real(stored.dtype, path)
        array, affine, dtype, header = stored, np.eye(4), stored.dtype, None
    else:
        array, affine, dtype, header = _read_nifti(path)
    array = array.reshape(_spatial(array.shape, path))
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused
        array = np.ascontiguousarray(array, dtype=np.float32)
    require_finite(array, str(path))
    return RawVolume(array, affine, dtype.newbyteorder("="), path, header)


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, np.dtype, _Header]:
    with _nifti_errors(path):
        image = _open_nifti(path)
        proxy = cast(Any, image.dataobj)
        slope, intercept = proxy.slope, proxy.inter
        stored = np.asanyarray(proxy.get_unscaled())
        affine = np.asarray(image.affine, dtype=np.float64)
    require_whole_gzip(path, int(proxy.offset) + stored.nbytes)
    if not np.isfinite(affine).all():
        raise UserError(f"{path} has NaN or infinite numbers in its affine; repair its header.")
    header = cast(_Header, image.header)
    if (slope, intercept) == (1, 0):
        return stored, affine, stored.dtype, header
    array = np.empty(stored.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # as above: refused afterwards
        for slab in slabs(stored.shape):
            array[slab] = apply_read_scaling(stored[slab], np.float64(slope), np.float64(intercept))
    return array, affine, array.dtype, header


def require_whole_gzip(path: Path, expected: int | None = None) -> None:
    """Read a ``.gz`` file to its end, which makes gzip compare the checksum; else do nothing.

    nibabel stops at the last voxel, where a flipped bit has passed as another intensity.

    Args:
        path: Of the file.
        expected: Bytes up to the last voxel, unpacked; None where the file is one of prod9's.

    Raises:
        UserError: the file is cut short or damaged, or goes on long behind the last voxel.

    """
    if not is_gzip(path):
        return
    read, most = 0, math.inf if expected is None else expected + _MOST_BEHIND_VOXELS
    try:
        with gzip.open(path) as file:
            while read <= most and (piece := file.read(1 << 20)):
                read += len(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}); copy it again.") from error
    if read > most:
        raise UserError(
            f"{path} goes on behind the {expected} bytes that its header declares; copy it again."
        )


@contextmanager
def _nifti_errors(path: Path) -> Generator[None]:
    """Tell the user about a file that nibabel cannot read."""
    try:
        yield
    except BROKEN as error:
        raise unreadable(path, error) from error


def _open_nifti(path: Path) -> NiftiImage:
    """Read the header, and refuse what is no volume before memory is allocated for it."""
    image = open_nifti(path)
    shape = tuple(int(side) for side in image.shape)
    _require_real(cast(_Header, image.header).get_data_dtype(), path)
    _spatial(shape, path)
    require_room(path, image, MAX_VOXELS)
    return image


def require_room(path: Path, image: NiftiImage, most: int) -> None:
    """Refuse a header that declares more voxels than the file or the machine can hold.

    Args:
        path: Of the file.
        image: Its header; the shape has no side below 0.
        most: Voxels.

    Raises:
        UserError: it declares more than ``most`` voxels, than the bytes of the file can hold, or
            than fit into this machine's memory.

    """
    dtype = cast(_Header, image.header).get_data_dtype()
    shape = tuple(int(side) for side in image.shape)
    stored = path.stat().st_size
    count = int(np.prod(shape, dtype=object))
    needed = int(cast(Any, image.dataobj).offset) + count * dtype.itemsize
    room = stored * DEFLATE_RATIO if is_gzip(path) else stored
    if count > most or needed > room:
        raise UserError(
            f"{path} declares {' x '.join(map(str, shape))} voxels of {dtype}, more than its "
            f"{stored} bytes can hold or prod9 reads ({most} voxels); it is cut short or "
            "damaged, copy it again."
        )
    # As they are stored (unpacked), and as float32.
    require_memory(count * (dtype.itemsize * is_gzip(path) + 4), str(path))


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the path.")


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
        UserError: as :func:`read_volume` for a ``raw_path`` that is no volume; the arrays have
            another shape; a new voxel is NaN or infinite; the file is there and must not be
            replaced, or cannot be written.

    """
    suffix, own = volume_suffix(path), volume_suffix(raw_path)
    if (suffix == ".npy") != (own == ".npy"):
        raise UserError(f"{path} must end in {own}, as {raw_path} does, which it is a copy of.")
    _refuse_overwrite(path, overwrite)
    _require_file(raw_path)
    if own == ".npy":
        stored = read_npy(raw_path)
        _require_real(stored.dtype, raw_path)
        _replace(stored, array, inside, 1.0, 0.0, raw_path)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, stored, allow_pickle=False)
        return
    with _nifti_errors(raw_path):
        proxy = cast(Any, _open_nifti(raw_path).dataobj)
        size = int(proxy.offset) + int(np.prod(proxy.shape)) * proxy.dtype.itemsize
        require_memory(size, str(raw_path))  # a forged offset may name any number
        with gzip.open(raw_path) if is_gzip(raw_path) else raw_path.open("rb") as file:
            content = bytearray(file.read(size))
        if len(content) < size:
            raise EOFError("it is cut short")
        # A view: what is put into it lands in `content`.
        stored = np.ndarray(proxy.shape, proxy.dtype, content, int(proxy.offset), order="F")
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
    sides = _spatial(stored.shape, path)
    if array.shape != sides or inside.shape != sides:
        raise UserError(
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


def _refuse_overwrite(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; pass --overwrite to replace it.")
