"""What a BraTS folder holds: every case read once, and what is wrong with it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes

from prod9.data.brats.cases import read_case
from prod9.data.brats.layouts import MODALITIES, BadCase, Case, find_cases
from prod9.data.geometry import grid_difference
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume, times
from prod9.errors import Prod9Error


@dataclass(frozen=True)
class Inspection:
    """All cases of a folder, each read once."""

    usable: tuple[Case, ...]
    bad: tuple[BadCase, ...]
    lines: tuple[tuple[str, str], ...]
    """What was found, as (what, found); each problem has a line of its own."""


def inspect_cohort(
    root: Path, on_case: Callable[[int, int], None] = lambda done, count: None
) -> Inspection:
    """Read every case below a folder once, segmentations too, and say what was found.

    ``on_case`` is called after each case with the number of cases read so far, and of all. A broken
    case is a problem in the result, not an error.
    """
    cohort = find_cases(root)
    usable: list[Case] = []
    bad = list(cohort.bad)
    problems: list[tuple[str, str]] = []
    shapes: list[str] = []
    spacings: list[str] = []
    orientations: list[str] = []
    for done, case in enumerate(cohort.cases, 1):
        try:
            first = read_case(case)[0]
        except BadCase as error:
            bad.append(error)
        else:
            usable.append(case)
            shapes.append(times(first.array.shape))
            spacings.append(f"{times(voxel_sizes(first.affine).round(3))} mm")
            orientations.append("".join(map(str, aff2axcodes(first.affine))))
            if problem := _problem_of_segmentation(case, first):
                problems.append((case.name, problem))
        on_case(done, len(cohort.cases))
    bad.sort(key=lambda case: case.name)
    problems += [(case.name, case.cause) for case in bad]
    scans = Counter(case.subject for case in usable)
    marked = sum(case.segmentation is not None for case in usable)
    releases = [case.release for case in usable]
    lines = [
        ("folder", str(root)),
        ("releases", _tally(releases)),
        ("cases", f"{len(usable)} usable, {len(bad)} broken"),
        ("subjects", str(len(scans))),
        ("timepoints", _tally((f"{n} a subject" for n in scans.values()), "subject")),
        ("modalities", f"{', '.join(MODALITIES)} in each usable case"),
        ("shapes", _tally(shapes)),
        ("spacings", _tally(spacings)),
        ("orientations", _tally(orientations)),
        ("segmentations", f"in {marked} of {len(usable)} usable cases"),
    ]
    if len(set(releases)) > 1:
        text = "several releases: they share patients under other names; split and train on one"
        lines.append(("problem", text))
    lines += [("problem", f"{name} {text}") for name, text in sorted(problems)]
    return Inspection(tuple(usable), tuple(bad), tuple(lines))


def _problem_of_segmentation(case: Case, first: StoredVolume) -> str | None:
    if case.segmentation is None:
        return None
    try:
        difference = grid_difference(first, read_volume(case.segmentation))
    except Prod9Error as error:
        return f"has a segmentation that cannot be used: {str(error).removesuffix('.')}"
    text = f"its T1 and its segmentation ({case.segmentation}) have {difference}"
    return difference and f"has a segmentation on another grid: {text}"


def _tally(found: Iterable[str], noun: str = "case") -> str:
    """Return each different text with its number, the most frequent first."""
    counts = sorted(Counter(found).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{t} ({n} {noun}{'s' * (n != 1)})" for t, n in counts) or "none"
