"""What the files of a set say of their grids, before their voxels are read."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from prod9.data.geometry import Placement
from prod9.data.volume_files.npz import read_npy_header
from prod9.data.volume_files.read import open_nifti, read_volume
from prod9.data.volume_files.stored_volume import volume_suffix
from prod9.errors import Prod9Error
from prod9.shapes import MAX_VOXELS

# Headers round: spacings of one set may differ by this share.
_SPACING_TOLERANCE = 0.01


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its voxels are read."""

    path: Path
    dtype: np.dtype
    """As :attr:`prod9.data.volume_files.stored_volume.StoredVolume.dtype`."""
    placement: Placement
    """The way to RAS+ axes, without resampling."""
    spacing_mm: tuple[float, float, float] | None
    """Along the RAS+ axes; None for ``.npy``."""


def read_header(path: Path) -> Header:
    """Read the header of a ``.nii``, ``.nii.gz`` or ``.npy``.

    Raises:
        Prod9Error: as :func:`read_volume` where the header is no volume's,
            and :meth:`~prod9.data.geometry.Placement.of`.
    """
    npy = volume_suffix(path) == ".npy"
    declared = _declared_npy(path) if npy else _declared_nifti(path)
    if declared is None:
        # It is broken: reading it whole says how. (If it is not, it is known as well.)
        raw = read_volume(path)
        declared = raw.array.shape, raw.affine, raw.dtype
    shape, affine, dtype = declared
    placement = Placement.of(shape, affine, None, str(path))
    return Header(path, dtype, placement, None if npy else placement.spacing_mm)


_Declared = tuple[tuple[int, ...], np.ndarray, np.dtype]


def _declared_npy(path: Path) -> _Declared | None:
    try:
        with path.open("rb") as file:
            header = read_npy_header(file)
    except (OSError, ValueError):
        return None
    return _sound(header.shape, np.eye(4), header.dtype)


def _declared_nifti(path: Path) -> _Declared | None:
    try:
        image = open_nifti(path)
        proxy = cast(Any, image.dataobj)
        scaled = (proxy.slope, proxy.inter) != (1, 0)
        dtype = np.dtype(np.float32) if scaled else cast(Any, image.header).get_data_dtype()
        affine = np.asarray(image.affine, dtype=np.float64)
        return _sound(image.shape, affine, dtype)
    except Exception:  # nibabel has many ways to fail; read_volume words them
        return None


def _sound(shape: tuple[int, ...], affine: np.ndarray, dtype: np.dtype) -> _Declared | None:
    """Return a volume's header without trailing axes of 1; None for what is no volume."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1 or dtype.kind not in "biuf":
        return None
    if math.prod(shape) > MAX_VOXELS:
        return None
    return shape, affine, dtype.newbyteorder("=")


def require_one_grid(headers: list[Header]) -> tuple[float, float, float] | None:
    """Return the spacing of volumes of one shape and spacing; None if a file tells none.

    Raises:
        Prod9Error: they differ; the sentence names the first file and the first that differs.
    """
    first = headers[0]
    for header in headers:
        if header.placement.shape != first.placement.shape:
            raise Prod9Error(
                f"{first.path} has {_times(first.placement.shape)} voxels but {header.path} has "
                f"{_times(header.placement.shape)} (axes right, front, up); resample them to one "
                "grid first."
            )
    known = [header for header in headers if header.spacing_mm is not None]
    for header in known:
        own, other = np.array(known[0].spacing_mm), np.array(header.spacing_mm)
        if (np.abs(other - own) > _SPACING_TOLERANCE * own).any():
            raise Prod9Error(
                f"{known[0].path} has voxels of {_times(own)} mm but {header.path} of "
                f"{_times(other)} mm (right, front, up); resample them to one spacing first."
            )
    return first.spacing_mm if len(known) == len(headers) else None


def _times(numbers: tuple[int, ...] | np.ndarray) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
