"""The voxels of BraTS cases. A folder of scans is only ever read."""

import itertools
import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from prod9.data.brats.layouts import MODALITIES, Case
from prod9.data.dataset import require_finite
from prod9.data.volume_files.read import open_nifti, read_nifti, read_volume
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error
from prod9.shapes import MAX_VOXELS

GRID_TOLERANCE_MM = 1e-3

# What the Decathlon calls its channels, in lower case; and their order where it does not say.
_CHANNEL_NAMES = {
    **dict.fromkeys(("t1", "t1w"), "T1"),
    **dict.fromkeys(("t1ce", "t1c", "t1gd"), "T1ce"),
    **dict.fromkeys(("t2", "t2w"), "T2"),
    "flair": "FLAIR",
}
_CHANNELS = ("FLAIR", "T1", "T1ce", "T2")


class BadCaseError(Prod9Error):
    """A case that cannot be used: the sentence names the case, the file and the cause.

    ``cause`` is a clause, as in :class:`prod9.data.brats.layouts.BadCase`.
    """

    def __init__(self, case: Case, cause: str) -> None:
        super().__init__(case, cause)  # both, so that the error can leave a loader's worker
        self.case, self.cause = case, cause

    def __str__(self) -> str:
        return f"case {self.case.name} {self.cause}."


def read_case(case: Case) -> list[StoredVolume]:
    """Read the four modalities of a case, in the order of ``MODALITIES``.

    Raises:
        BadCaseError: a file is missing, damaged, of another kind, or has NaN or infinite voxels;
            all voxels of a modality are equal; the modalities lie on different grids (another
            shape, or a corner further away than ``GRID_TOLERANCE_MM``); the affine gives voxels no
            volume; the channels of a Decathlon file are not the four modalities.
    """
    try:
        volumes = _read_4d(case) if case.release == "msd" else _read_3d(case)
    except BadCaseError:
        raise
    except Prod9Error as error:
        raise BadCaseError(case, unusable(error)) from error
    for modality, volume in zip(MODALITIES, volumes, strict=True):
        value = volume.array.flat[0]
        if (volume.array == value).all():
            raise BadCaseError(
                case,
                f"has an empty {modality}: all voxels of {volume.path} are {value:g}; replace it",
            )
    if not abs(np.linalg.det(volumes[0].affine[:3, :3])) > 1e-9:
        path = volumes[0].path
        raise BadCaseError(case, f"has voxels of no volume in {path}; repair its affine")
    return volumes


def grid_distance_mm(shape: tuple[int, ...], first: np.ndarray, second: np.ndarray) -> float:
    """Return how far apart two affines (4, 4) put a corner of a volume (D, H, W), at most."""
    corners = np.array([(*c, 1) for c in itertools.product(*((0, side - 1) for side in shape))])
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())


def grid_difference(first: StoredVolume, second: StoredVolume) -> str | None:
    """Say how two grids differ, or return None."""
    shape = first.array.shape
    if shape != second.array.shape:
        return f"{by(shape)} and {by(second.array.shape)} voxels"
    distance = grid_distance_mm(shape, first.affine, second.affine)
    if distance > GRID_TOLERANCE_MM:
        return f"affines that put a corner {distance:.3g} mm apart"
    return None


def _read_3d(case: Case) -> list[StoredVolume]:
    volumes = [read_volume(case.files[modality]) for modality in MODALITIES]
    first = volumes[0]
    for modality, volume in zip(MODALITIES, volumes, strict=True):
        if difference := grid_difference(first, volume):
            raise BadCaseError(
                case,
                f"has two grids: T1 ({first.path}) and {modality} ({volume.path}) have "
                f"{difference}; resample one onto the other",
            )
    return volumes


def _read_4d(case: Case) -> list[StoredVolume]:
    path = case.files[MODALITIES[0]]
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
    stored, affine = read_nifti(path, image, 4 * MAX_VOXELS)
    stored = stored.reshape(shape[:4])
    volumes: list[StoredVolume] = []
    for modality in MODALITIES:
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite: refused
            array = np.ascontiguousarray(stored[..., order.index(modality)], np.float32)
        require_finite(array, f"{modality} in {path}")
        volumes.append(StoredVolume(array, affine, np.dtype(np.float32), path, image.header))
    return volumes


def channel_order(case: Case) -> tuple[str, ...]:
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
