"""BraTS cases: their voxels, read with care.

Which files make up a case is the business of :mod:`prod9.data.brats.layouts`, whose names are
given on from here. A folder of scans is only ever read.
"""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from nibabel.nifti1 import Nifti1Header

from prod9.data.brats.layouts import MODALITIES, BadCase, Case, Cohort, Release, find_cases
from prod9.data.volume_files.read import open_nifti, read_nifti, read_volume
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.data.volumes import require_finite
from prod9.errors import Prod9Error
from prod9.shapes import MAX_VOXELS

__all__ = [
    "GRID_TOLERANCE_MM",
    "MODALITIES",
    "BadCase",
    "BadCaseError",
    "Case",
    "Cohort",
    "RawCase",
    "Release",
    "describes_channels",
    "find_cases",
    "grid_distance_mm",
    "read_case",
]

GRID_TOLERANCE_MM = 1e-3

# What the Decathlon calls its channels, in lower case; and their order where it does not say.
_CHANNEL_NAMES = {
    **dict.fromkeys(("t1", "t1w"), "T1"),
    **dict.fromkeys(("t1ce", "t1c", "t1gd"), "T1ce"),
    **dict.fromkeys(("t2", "t2w"), "T2"),
    "flair": "FLAIR",
}
_CHANNELS = ("FLAIR", "T1", "T1ce", "T2")

# A dataset.json names some thousand files; what is larger is something else.
_MOST_JSON = 64 << 20


@dataclass(frozen=True)
class RawCase:
    """The voxels of a case as they were stored."""

    case: Case
    arrays: np.ndarray
    """float32 (4, D, H, W) in the order of ``MODALITIES``, in the files' intensities."""
    affine: np.ndarray
    """float64 (4, 4): voxel to mm."""
    header: Nifti1Header = field(repr=False)
    """The NIfTI header of the T1, or of the 4D file."""


class BadCaseError(Prod9Error):
    """A case that cannot be used: the sentence names the case, the file and the cause.

    ``cause`` is a clause, as in :class:`BadCase`.
    """

    def __init__(self, case: Case, cause: str) -> None:
        super().__init__(case, cause)  # both, so that the error can leave a loader's worker
        self.case, self.cause = case, cause

    def __str__(self) -> str:
        return f"case {self.case.name} {self.cause}."


def read_case(case: Case) -> RawCase:
    """Read the four modalities of a case.

    Raises:
        BadCaseError: a file is missing, damaged, of another kind, or has NaN or infinite voxels;
            all voxels of a modality are equal; the modalities lie on different grids (another
            shape, or a corner further away than ``GRID_TOLERANCE_MM``); the affine gives voxels no
            volume; the channels of a Decathlon file are not the four modalities.
    """
    try:
        raw = _read_4d(case) if case.release == "msd" else _read_3d(case)
    except BadCaseError:
        raise
    except Prod9Error as error:
        raise BadCaseError(case, unusable(error)) from error
    for modality, array in zip(MODALITIES, raw.arrays, strict=True):
        path, first = case.files[modality], array.flat[0]
        if (array == first).all():
            raise BadCaseError(
                case, f"has an empty {modality}: all voxels of {path} are {first:g}; replace it"
            )
    if not abs(np.linalg.det(raw.affine[:3, :3])) > 1e-9:
        path = case.files["T1"]
        raise BadCaseError(case, f"has voxels of no volume in {path}; repair its affine")
    return raw


def grid_distance_mm(shape: tuple[int, ...], first: np.ndarray, second: np.ndarray) -> float:
    """Return how far apart two affines (4, 4) put a corner of a volume (D, H, W), at most."""
    corners = np.array([(*c, 1) for c in itertools.product(*((0, side - 1) for side in shape))])
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())


def _read_3d(case: Case) -> RawCase:
    volumes = [read_volume(case.files[modality]) for modality in MODALITIES]
    first = volumes[0]
    for modality, volume in zip(MODALITIES, volumes, strict=True):
        difference = grid_difference(first, volume)
        if difference:
            raise BadCaseError(
                case,
                f"has two grids: T1 ({first.path}) and {modality} ({volume.path}) have "
                f"{difference}; resample one onto the other",
            )
    arrays = np.stack([volume.array for volume in volumes])
    return RawCase(case, arrays, first.affine, cast(Nifti1Header, first.header))


def grid_difference(first: StoredVolume | RawCase, second: StoredVolume) -> str | None:
    """Say in which way two grids differ, or None."""
    """Return how two grids differ, if they do."""
    shape = first.arrays.shape[1:] if isinstance(first, RawCase) else first.array.shape
    if shape != second.array.shape:
        return f"{by(shape)} and {by(second.array.shape)} voxels"
    distance = grid_distance_mm(shape, first.affine, second.affine)
    if distance > GRID_TOLERANCE_MM:
        return f"affines that put a corner {distance:.3g} mm apart"
    return None


def _read_4d(case: Case) -> RawCase:
    path = case.files["T1"]
    order = _channels(path)
    image = open_nifti(path)
    dtype = cast(Any, image.header).get_data_dtype()
    shape = tuple(int(side) for side in image.shape)
    if dtype.kind not in "biuf":
        raise Prod9Error(f"{path} holds {dtype} voxels; prod9 reads real numbers.")
    if len(shape) < 4 or shape[3] != 4 or min(shape) < 1 or set(shape[4:]) - {1}:
        raise Prod9Error(
            f"{path} has the shape {by(shape)}; a Decathlon file has four axes, the last of "
            f"length 4 for {', '.join(order)}."
        )
    channels, affine = read_nifti(path, image, 4 * MAX_VOXELS)
    channels = channels.reshape(shape[:4])
    arrays = np.empty((4, *shape[:3]), np.float32)
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused
        for array, modality in zip(arrays, MODALITIES, strict=True):
            array[...] = channels[..., order.index(modality)]
            require_finite(array, f"{modality} in {path}")
    return RawCase(case, arrays, affine, image.header)


def describes_channels(case: Case) -> tuple[str, ...]:
    """Return the order in which a Decathlon case's channels will be read; () for other releases.

    ``dataset.json`` decides it, so it is part of what the voxels depend on.

    Raises:
        BadCaseError: ``dataset.json`` cannot be used.
    """
    if case.release != "msd":
        return ()
    try:
        return _channels(case.files[MODALITIES[0]])
    except Prod9Error as error:
        raise BadCaseError(case, unusable(error)) from error


def _channels(image: Path) -> tuple[str, ...]:
    """Return the modality of each channel: as ``dataset.json`` says, else the published order."""
    path = image.absolute().parent.parent / "dataset.json"
    try:
        if path.stat().st_size > _MOST_JSON:
            raise ValueError("it is too large")
        names = json.loads(path.read_text(encoding="utf-8")).get("modality", {})
        if isinstance(names, dict):  # {"0": "FLAIR", "1": "T1w", ...}
            numbered = {int(key): name for key, name in cast("dict[str, str]", names).items()}
            names = [numbered[channel] for channel in range(len(numbered))]
        order = tuple(_CHANNEL_NAMES.get(name.lower(), name) for name in cast("list[str]", names))
    except FileNotFoundError:
        return _CHANNELS
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise Prod9Error(
            f"{path} does not say which modality each channel is ({error!r}); repair or remove it."
        ) from error
    if order and sorted(order) != sorted(MODALITIES):
        raise Prod9Error(
            f"{path} names the channels {', '.join(order)}; needed are {', '.join(MODALITIES)}, "
            "each once."
        )
    return order or _CHANNELS


def unusable(error: Prod9Error) -> str:
    """Turn a sentence into a clause that goes on from a case's name."""
    return f"cannot be used: {str(error).removesuffix('.')}"


def by(shape: tuple[int, ...]) -> str:
    """Return ``240 x 240 x 155``."""
    return " x ".join(map(str, shape))
