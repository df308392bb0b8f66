"""A volume as it is stored, and what all readers and writers of volume files have in common."""

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from prod9.errors import Prod9Error

SUFFIXES = (".nii", ".nii.gz", ".npy")
# Where float64 is needed, it is for this many voxels at a time (32 MiB), not for a whole volume.
_SLAB = 1 << 22

NiftiHeader: TypeAlias = Nifti1Header | Nifti2Header


@dataclass(frozen=True)
class StoredVolume:
    """A volume as it was stored."""

    array: np.ndarray
    """float32 (D, H, W), in the file's intensities (after NIfTI's slope and intercept)."""
    affine: np.ndarray
    """float64 (4, 4): voxel to mm; the identity for ``.npy``."""
    dtype: np.dtype
    """Of the voxels; float32 where a NIfTI scales stored integers by a slope."""
    path: Path
    header: NiftiHeader | None = field(default=None, repr=False)
    """The NIfTI header, for writing a result with the same geometry."""


def slabs(shape: tuple[int, ...]) -> Generator[slice]:
    """Give slices of the first axis that hold about ``_SLAB`` voxels each."""
    thickness = max(1, _SLAB // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], thickness):
        yield slice(start, start + thickness)


def volume_suffix(path: Path) -> str:
    """Return ``.nii``, ``.nii.gz`` or ``.npy``.

    Raises:
        Prod9Error: the name ends in something else.
    """
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix
    raise Prod9Error(f"{path} must end in {', '.join(SUFFIXES)}; convert it first.")


def require_real(dtype: np.dtype, path: Path) -> None:
    """Refuse voxels of the file ``path`` that are no real numbers: colours, complex ones, text.

    Raises:
        Prod9Error: ``dtype`` is none of bool, integers and floats.
    """
    if dtype.kind not in "biuf":
        raise Prod9Error(f"{path} holds {dtype} voxels; prod9 reads real numbers (one grey value).")


def spatial_sides(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """Return the three spatial sides of what the file ``path`` holds: trailing axes of 1 dropped.

    Raises:
        Prod9Error: what remains has not three axes, or an empty one.
    """
    sides = shape
    while len(sides) > 3 and sides[-1] == 1:
        sides = sides[:-1]
    if len(sides) != 3 or min(sides) < 1:
        raise Prod9Error(
            f"{path} has the shape {' x '.join(map(str, shape)) or '()'}; a volume has three axes, "
            "none of them empty (split a series into its volumes first)."
        )
    return sides
