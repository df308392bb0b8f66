"""BraTS folders of any year: which files make up which case, by their names alone.

Three layouts are known, at any depth and in any mixture: 2018-2021 (``{case}_t1.nii.gz``),
2023-2024 (``{case}-t1n.nii.gz``) and the Medical Segmentation Decathlon
(``imagesTr/BRATS_001.nii.gz``, all four modalities in one file).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prod9.data.scan_cache import BadCase
from prod9.data.volume_files.find import walk
from prod9.errors import Prod9Error

MODALITIES = ("T1", "T1ce", "T2", "FLAIR")
Release = Literal["2018-2021", "2023-2024", "msd"]

DECATHLON_CHANNELS = ("FLAIR", "T1", "T1ce", "T2")
"""In a Decathlon file whose ``dataset.json`` does not say otherwise."""
SEGMENTATION, _ALL_FOUR = "the segmentation", "the four modalities"
_ROLES = (*MODALITIES, SEGMENTATION)
ENDINGS: dict[Release, dict[str, str]] = {
    "2018-2021": dict(zip(_ROLES, ("_t1", "_t1ce", "_t2", "_flair", "_seg"), strict=True)),
    "2023-2024": dict(zip(_ROLES, ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"), strict=True)),
}
_MEANINGS: dict[str, tuple[Release, str]] = {
    ending: (release, role) for release, row in ENDINGS.items() for role, ending in row.items()
}
_FILE = re.compile(rf"(.+)({'|'.join(_MEANINGS)})\.nii(?:\.gz)?", re.IGNORECASE)
_DECATHLON_FILE = re.compile(r"(BRATS_\d+)\.nii(?:\.gz)?", re.IGNORECASE)
_WITH_TIMEPOINT = re.compile(r"(brats(?:-[a-z]+)+-\d+)-\d{1,3}", re.IGNORECASE)
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".7z", ".rar")


@dataclass(frozen=True)
class Case:
    """One scan: its four modalities, by file."""

    name: str
    subject: str
    """The name without the timepoint if it has one (2023-2024), else the name."""
    release: Release
    files: Mapping[str, Path] = field(hash=False)
    """By modality, in the order of ``MODALITIES``; for ``msd`` the same 4D file four times."""
    segmentation: Path | None


@dataclass(frozen=True)
class Cohort:
    """What a folder holds."""

    cases: tuple[Case, ...]
    """Sorted by name; names are unique."""
    bad: tuple[BadCase, ...]
    """Sorted by name."""

    @property
    def releases(self) -> tuple[Release, ...]:
        """The releases of ``cases``, sorted, each once."""
        return tuple(sorted({case.release for case in self.cases}))


_Place = tuple[Path, Release]  # a folder, and how a case's files are named there
_Files = dict[str, list[Path]]  # by modality, SEGMENTATION or _ALL_FOUR


def find_cases(root: Path) -> Cohort:
    """Return the cases below a folder, from the names of its files; no file is opened.

    Raises:
        Prod9Error: the folder is missing, cannot be listed, or holds no case of any known layout.
    """
    if not root.is_dir():
        raise Prod9Error(
            f"{root} does not exist or is no folder; give the unpacked BraTS folder of synapse.org "
            "or medicaldecathlon.com (data.data_dir; BRATS_DATA_DIR in the shipped configurations),"
            f" or make one of drawn cases: prod9 data make-phantom-brats {root} --cases 6."
        )
    found: dict[str, dict[_Place, _Files]] = {}
    other: list[Path] = []
    for path in (file for _, files in walk(root) for file in files):
        meaning = _meaning(path)
        if meaning is None:
            other.append(path)
            continue
        name, release, role = meaning
        files = found.setdefault(name, {}).setdefault((path.parent, release), {})
        files.setdefault(role, []).append(path)
    if not found:
        archives = [path for path in other if path.name.lower().endswith(_ARCHIVES)]
        hint = "give the folder that holds the cases"
        if other:
            hint = f"it has other files, such as {other[0]}"
        if archives:
            hint = f"unpack {archives[0]} first"
        raise Prod9Error(
            f"{root} holds no BraTS case: known are CASE/CASE_{{t1,t1ce,t2,flair}}.nii.gz "
            "(2018-2021), CASE/CASE-{t1n,t1c,t2w,t2f}.nii.gz (2023-2024) and "
            "imagesTr/BRATS_001.nii.gz (Medical Segmentation Decathlon), at any depth, .nii.gz or "
            f".nii; {hint}."
        )
    cases: list[Case] = []
    bad: list[BadCase] = []
    for name, places in sorted(found.items()):
        cause = _cause(places)
        if cause is None:
            ((_, release), files) = next(iter(places.items()))
            cases.append(_case(name, release, files))
        else:
            bad.append(BadCase(name, cause))
    return Cohort(tuple(cases), tuple(bad))


def _meaning(path: Path) -> tuple[str, Release, str] | None:
    """Return a file's case, release and role, if its name has any."""
    if match := _FILE.fullmatch(path.name):
        return match[1], *_MEANINGS[match[2].lower()]
    match = _DECATHLON_FILE.fullmatch(path.name)
    if match and not path.absolute().parent.name.lower().startswith("labels"):
        return match[1], "msd", _ALL_FOUR
    return None


def _cause(places: dict[_Place, _Files]) -> str | None:
    """Return what keeps a case from being used, if anything."""
    if len(places) > 1:
        one_each = [next(iter(files.values()))[0] for files in places.values()]
        return f"is there more than once, as {_and(one_each)}; keep one of them"
    ((folder, release), files) = next(iter(places.items()))
    for role, paths in files.items():
        if len(paths) > 1:
            return f"has more than one file of {role}, {_and(paths)}; keep one of them"
    if release == "msd":
        return None
    missing = [
        f"no {role} (no file ending in {ENDINGS[release][role]}.nii.gz or .nii)"
        for role in MODALITIES
        if role not in files
    ]
    return f"has {_and(missing)} in {folder}" if missing else None


def _case(name: str, release: Release, files: _Files) -> Case:
    """Return a whole case."""
    if release == "msd":
        image = files[_ALL_FOUR][0]
        labels = image.absolute().parent.parent / "labelsTr" / image.name
        segmentation = labels if labels.exists() else None
        return Case(name, name, release, dict.fromkeys(MODALITIES, image), segmentation)
    by_modality = {modality: files[modality][0] for modality in MODALITIES}
    segmentation = files.get(SEGMENTATION, [None])[0]
    return Case(name, subject_of(name), release, by_modality, segmentation)


def subject_of(case: str) -> str:
    """Return whose scan a case is, by its name: without the timepoint, if it has one."""
    timepoint = _WITH_TIMEPOINT.fullmatch(case)
    return timepoint[1] if timepoint else case


def _and(items: Iterable[object]) -> str:
    return " and ".join(map(str, items))
