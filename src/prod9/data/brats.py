"""BraTS cases: their voxels, read with care, and an inspection of all of a folder's cases.

Which files make up a case is the business of :mod:`prod9.data.brats_layouts`, whose names are
given on from here. A folder of scans is only ever read.
"""

import itertools
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import HeaderDataError

from prod9.data.brats_layouts import MODALITIES, BadCase, Case, Cohort, Release, find_cases
from prod9.data.volume_io import MAX_VOXELS, RawVolume, read_volume, require_whole_gzip
from prod9.data.volumes import require_finite
from prod9.errors import UserError

__all__ = [
    "GRID_TOLERANCE_MM",
    "MODALITIES",
    "BadCase",
    "BadCaseError",
    "Case",
    "CaseReport",
    "Cohort",
    "Inspection",
    "RawCase",
    "Release",
    "describes_channels",
    "find_cases",
    "grid_distance_mm",
    "inspect_cohort",
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

_MAX_RATIO = 1032  # deflate cannot shrink anything further
_BROKEN = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)


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


class BadCaseError(UserError):
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
    except UserError as error:
        raise BadCaseError(case, _unusable(error)) from error
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
        difference = _difference(first, volume)
        if difference:
            raise BadCaseError(
                case,
                f"has two grids: T1 ({first.path}) and {modality} ({volume.path}) have "
                f"{difference}; resample one onto the other",
            )
    arrays = np.stack([volume.array for volume in volumes])
    return RawCase(case, arrays, first.affine, cast(Nifti1Header, first.header))


def _difference(first: RawVolume | RawCase, second: RawVolume) -> str | None:
    """Return how two grids differ, if they do."""
    shape = first.arrays.shape[1:] if isinstance(first, RawCase) else first.array.shape
    if shape != second.array.shape:
        return f"{_by(shape)} and {_by(second.array.shape)} voxels"
    distance = grid_distance_mm(shape, first.affine, second.affine)
    if distance > GRID_TOLERANCE_MM:
        return f"affines that put a corner {distance:.3g} mm apart"
    return None


def _read_4d(case: Case) -> RawCase:
    path = case.files["T1"]
    order = _channels(path)
    try:
        image = nib.load(path)  # type: ignore[attr-defined]
        if not isinstance(image, Nifti1Image):  # Nifti2Image is one too
            raise UserError(f"{path} is no NIfTI file; convert it first.")
        header, voxels = image.header, cast(Any, image.dataobj)
        dtype, shape = header.get_data_dtype(), tuple(int(side) for side in image.shape)
        if dtype.kind not in "biuf":
            raise UserError(f"{path} holds {dtype} voxels; prod9 reads real numbers.")
        if len(shape) < 4 or shape[3] != 4 or min(shape) < 1 or set(shape[4:]) - {1}:
            raise UserError(
                f"{path} has the shape {_by(shape)}; a Decathlon file has four axes, the last of "
                f"length 4 for {', '.join(order)}."
            )
        stored = path.stat().st_size
        compressed = path.name.lower().endswith(".gz")
        room = stored * _MAX_RATIO if compressed else stored - int(voxels.offset)
        count = int(np.prod(shape, dtype=object))
        if count > 4 * MAX_VOXELS or count * dtype.itemsize > room:
            raise UserError(
                f"{path} declares {_by(shape)} voxels of {dtype}, more than its {stored} bytes can "
                "hold or prod9 reads; it is cut short or damaged, copy it again."
            )
        channels = np.asanyarray(voxels).reshape(shape[:4])
        affine = np.asarray(image.affine, dtype=np.float64)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path.") from None
    except _BROKEN as error:
        raise UserError(f"{path} is not a readable NIfTI file ({error}); copy it again.") from error
    require_whole_gzip(path)
    if not np.isfinite(affine).all():
        raise UserError(f"{path} has NaN or infinite numbers in its affine; repair its header.")
    arrays = np.empty((4, *shape[:3]), np.float32)
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused
        for array, modality in zip(arrays, MODALITIES, strict=True):
            array[...] = channels[..., order.index(modality)]
            require_finite(array, f"{modality} in {path}")
    return RawCase(case, arrays, affine, header)


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
    except UserError as error:
        raise BadCaseError(case, _unusable(error)) from error


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
        raise UserError(
            f"{path} does not say which modality each channel is ({error!r}); repair or remove it."
        ) from error
    if order and sorted(order) != sorted(MODALITIES):
        raise UserError(
            f"{path} names the channels {', '.join(order)}; needed are {', '.join(MODALITIES)}, "
            "each once."
        )
    return order or _CHANNELS


def _unusable(error: UserError) -> str:
    return f"cannot be used: {str(error).removesuffix('.')}"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


@dataclass(frozen=True)
class CaseReport:
    """What reading a case found; the first three are None where it cannot be used."""

    case: Case
    shape: tuple[int, int, int] | None
    """Voxels (D, H, W)."""
    spacing_mm: tuple[float, float, float] | None
    """Voxel size, rounded to 0.001 mm."""
    orientation: str | None
    """Where the axes point to, such as ``LPS``."""
    problems: tuple[str, ...]
    """Clauses, as in :class:`BadCase`: of a case that cannot be used, or of its segmentation."""


@dataclass(frozen=True)
class Inspection:
    """All cases of a folder, each read once."""

    cohort: Cohort
    reports: tuple[CaseReport, ...]
    """One for each of ``cohort.cases``."""

    @property
    def bad(self) -> tuple[BadCase, ...]:
        """All cases that cannot be used, by their names or by their voxels; sorted by name."""
        unread = [BadCase(r.case.name, r.problems[0]) for r in self.reports if r.shape is None]
        return tuple(sorted([*self.cohort.bad, *unread], key=lambda bad: bad.name))

    @property
    def usable(self) -> tuple[Case, ...]:
        """The cases that can be read, sorted by name."""
        return tuple(report.case for report in self.reports if report.shape is not None)

    def lines(self) -> list[tuple[str, str]]:
        """Return what was found, as (what, found); each problem has a line of its own."""
        usable = self.usable
        whole = [report for report in self.reports if report.shape is not None]
        scans = Counter(case.subject for case in usable)
        marked = sum(case.segmentation is not None for case in usable)
        lines = [
            ("folder", str(self.cohort.root)),
            ("releases", _tally(case.release for case in usable)),
            ("cases", f"{len(usable)} usable, {len(self.bad)} broken"),
            ("subjects", str(len(scans))),
            ("timepoints", _tally((f"{n} a subject" for n in scans.values()), "subject")),
            ("modalities", f"{', '.join(MODALITIES)} in each usable case"),
            ("shapes", _tally(_by(r.shape) for r in whole if r.shape)),
            ("spacings", _tally(_mm(r.spacing_mm) for r in whole if r.spacing_mm)),
            ("orientations", _tally(r.orientation for r in whole if r.orientation)),
            ("segmentations", f"in {marked} of {len(usable)} usable cases"),
        ]
        if len({case.release for case in usable}) > 1:
            text = "several releases: they share patients under other names; split and train on one"
            lines.append(("problem", text))
        problems = [(bad.name, bad.cause) for bad in self.cohort.bad]
        problems += [(r.case.name, problem) for r in self.reports for problem in r.problems]
        return lines + [("problem", f"{name} {text}") for name, text in sorted(problems)]


def inspect_cohort(
    root: Path, on_case: Callable[[int, int], None] = lambda done, count: None
) -> Inspection:
    """Read every case below a folder once, segmentations too, and say what was found.

    Args:
        root: As for :func:`find_cases`.
        on_case: Called after each case with the number of cases read so far, and of all.

    Raises:
        UserError: as :func:`find_cases`. A broken case is a problem in the result, not an error.

    """
    cohort = find_cases(root)
    reports: list[CaseReport] = []
    for case in cohort.cases:
        reports.append(_report(case))
        on_case(len(reports), len(cohort.cases))
    return Inspection(cohort, tuple(reports))


def _report(case: Case) -> CaseReport:
    try:
        raw = read_case(case)
    except BadCaseError as error:
        return CaseReport(case, None, None, None, (error.cause,))
    problems: tuple[str, ...] = ()
    if case.segmentation is not None:
        try:
            difference = _difference(raw, read_volume(case.segmentation))
            if difference:
                text = f"its T1 and its segmentation ({case.segmentation}) have {difference}"
                problems = (f"has a segmentation on another grid: {text}",)
        except UserError as error:
            problems = (f"has a segmentation that {_unusable(error)}",)
    depth, height, width = raw.arrays.shape[1:]
    x, y, z = (round(float(size), 3) for size in voxel_sizes(raw.affine))
    axes = "".join(str(axis) for axis in aff2axcodes(raw.affine))
    return CaseReport(case, (depth, height, width), (x, y, z), axes, problems)


def _mm(spacing: tuple[float, ...]) -> str:
    return f"{' x '.join(f'{side:g}' for side in spacing)} mm"


def _tally(found: Iterable[str], noun: str = "case") -> str:
    """Return each different text with its number, the most frequent first."""
    counts = sorted(Counter(found).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{t} ({n} {noun}{'s' * (n != 1)})" for t, n in counts) or "none"
