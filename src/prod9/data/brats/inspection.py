"""What a BraTS folder holds: every case read once, and what is wrong with it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes

from prod9.data.brats.cases import BadCaseError, by, grid_difference, read_case, unusable
from prod9.data.brats.layouts import MODALITIES, BadCase, Case, Cohort, find_cases
from prod9.data.volume_files.read import read_volume
from prod9.errors import Prod9Error


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
            ("shapes", _tally(by(r.shape) for r in whole if r.shape)),
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
        Prod9Error: as :func:`find_cases`. A broken case is a problem in the result, not an error.
    """
    cohort = find_cases(root)
    reports: list[CaseReport] = []
    for case in cohort.cases:
        reports.append(_report(case))
        on_case(len(reports), len(cohort.cases))
    return Inspection(cohort, tuple(reports))


def _report(case: Case) -> CaseReport:
    try:
        first, *_ = read_case(case)
    except BadCaseError as error:
        return CaseReport(case, None, None, None, (error.cause,))
    problems: tuple[str, ...] = ()
    if case.segmentation is not None:
        try:
            difference = grid_difference(first, read_volume(case.segmentation))
            if difference:
                text = f"its T1 and its segmentation ({case.segmentation}) have {difference}"
                problems = (f"has a segmentation on another grid: {text}",)
        except Prod9Error as error:
            problems = (f"has a segmentation that {unusable(error)}",)
    depth, height, width = first.array.shape
    x, y, z = (round(float(size), 3) for size in voxel_sizes(first.affine))
    axes = "".join(str(axis) for axis in aff2axcodes(first.affine))
    return CaseReport(case, (depth, height, width), (x, y, z), axes, problems)


def _mm(spacing: tuple[float, ...]) -> str:
    return f"{' x '.join(f'{side:g}' for side in spacing)} mm"


def _tally(found: Iterable[str], noun: str = "case") -> str:
    """Return each different text with its number, the most frequent first."""
    counts = sorted(Counter(found).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{t} ({n} {noun}{'s' * (n != 1)})" for t, n in counts) or "none"
