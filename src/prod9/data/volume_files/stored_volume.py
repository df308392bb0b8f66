"""A volume as it is stored, and what readers and writers of volume files have in common."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from prod9.errors import Prod9Error

SUFFIXES = (".nii", ".nii.gz", ".npy")
"""Of the formats that are written; they are read too."""
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
"""Of the formats that SimpleITK reads."""
READ_SUFFIXES = (*SUFFIXES, ".npz", *ITK_SUFFIXES)
TOKENS = ".tokens.npz"
"""Ending of token files, which are no volumes."""
_SLAB = 1 << 22
"""Voxels that are float64 at one time (32 MiB); a whole volume never is."""

NiftiHeader: TypeAlias = Nifti1Header | Nifti2Header


@dataclass(frozen=True)
class StoredVolume:
    """A volume as it was stored."""

    array: np.ndarray
    """float32 (D, H, W), in the file's intensities (after NIfTI's slope and intercept)."""
    affine: np.ndarray
    """float64 (4, 4): voxel to mm (RAS+); the identity for ``.npy`` and ``.npz``."""
    dtype: np.dtype
    """Of the voxels; float32 where stored integers are scaled by a slope that is no integer."""
    path: Path
    header: NiftiHeader | None = field(default=None, repr=False)
    """The NIfTI header, for writing a result with the same geometry; None in other formats."""

    @classmethod
    def of(
        cls,
        array: np.ndarray,
        path: Path,
        affine: np.ndarray | None = None,
        header: NiftiHeader | None = None,
    ) -> "StoredVolume":
        """Return a volume of any real dtype; trailing axes of length 1 are dropped.

        Raises:
            Prod9Error: not 3D, empty, not of real numbers, or with NaN or infinite voxels (also
                float64 too large for float32); the sentence names ``path``.
        """
        require_real(array.dtype, path)
        dtype = array.dtype.newbyteorder("=")
        array = array.reshape(spatial_sides(array.shape, path))
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, dtype=np.float32)
        require_finite(array, str(path))
        return cls(array, np.eye(4) if affine is None else affine, dtype, path, header)


def slabs(shape: tuple[int, ...]) -> Generator[slice]:
    """Give slices of the first axis that hold about ``_SLAB`` voxels each."""
    thickness = max(1, _SLAB // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], thickness):
        yield slice(start, start + thickness)


def volume_suffix(path: Path, known: tuple[str, ...] = SUFFIXES) -> str:
    """Return the suffix of a volume's name, by default one that is written; refuse other names."""
    for suffix in known:
        if path.name.lower().endswith(suffix):
            return suffix
    raise Prod9Error(f"{path} must end in {', '.join(known)}; convert it first.")


def result_suffix(source: Path) -> str:
    """Return the suffix of a result for the file or folder ``source``: its own, or ``.nii.gz``."""
    own = () if source.is_dir() else SUFFIXES
    return next((suffix for suffix in own if source.name.lower().endswith(suffix)), ".nii.gz")


def volume_stem(path: Path) -> str:
    """Return a file's name without the suffix of volumes or tokens; a folder's whole name."""
    if path.is_dir():
        return path.absolute().name  # "." has none
    known = (TOKENS, ".nii.gz", *READ_SUFFIXES)
    suffix = next((each for each in known if path.name.lower().endswith(each)), "")
    return path.name[: len(path.name) - len(suffix)]


def number_of_part(shape: tuple[int, ...], part: str, path: Path) -> int:
    """Return which volume of a file is meant; volumes follow each other on the fourth axis.

    Args:
        shape: of the file's array.
        part: the number as text, from 0; empty where the file holds one volume.
        path: of the file, for the message.
    """
    count = shape[3] if len(shape) > 3 and set(shape[4:]) <= {1} else 1
    spatial_sides(shape if count == 1 else shape[:3], path)
    if part == "" and count == 1:
        return 0
    if part == "":
        raise Prod9Error(
            f"{path} has the shape {times(shape)}; a volume has three axes (choose one of its "
            f"volumes by number, 0 to {count - 1}, or split the file into its volumes first)."
        )
    if not (part.isascii() and part.isdigit() and int(part) < count):
        raise Prod9Error(
            f"{path} has the shape {times(shape)} and no volume '{part}'; give a number from 0 to "
            f"{count - 1}."
        )
    return int(part)


def require_real(dtype: np.dtype, path: Path) -> None:
    """Refuse voxels of the file ``path`` that are no real numbers: colours, complex ones, text."""
    if dtype.kind not in "biuf":
        raise Prod9Error(f"{path} holds {dtype} voxels; prod9 reads real numbers (one grey value).")


def spatial_sides(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """Return the three sides of a volume in the file ``path``; trailing axes of 1 are dropped."""
    sides = [*shape]
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    if len(sides) != 3 or min(sides) < 1:
        raise Prod9Error(
            f"{path} has the shape {times(shape) or '()'}; a volume has three axes, none of them "
            "empty (split a series into its volumes first)."
        )
    return sides[0], sides[1], sides[2]


def require_finite(volume: np.ndarray, name: str) -> None:
    """Refuse a volume with NaN or infinite voxels; ``name`` stands in the message."""
    bad = volume.size - int(np.count_nonzero(np.isfinite(volume)))
    if bad:
        raise Prod9Error(
            f"{name} has {bad} of {volume.size} voxels that are NaN or infinite; repair the volume "
            "or leave it out."
        )


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Turn whatever numpy, zipfile, nibabel or gzip raise for a damaged file into one sentence."""
    try:
        yield
    except Prod9Error:
        raise
    except FileNotFoundError:
        raise Prod9Error(f"{path} does not exist; check the path.") from None
    except Exception as error:
        raise Prod9Error(f"{path} cannot be read ({error}); fetch or write it again.") from error


def times(numbers: Iterable[int | float]) -> str:
    """Return ``240 x 240 x 155``."""
    return " x ".join(str(n) if isinstance(n, int) else f"{n:.6g}" for n in numbers)
