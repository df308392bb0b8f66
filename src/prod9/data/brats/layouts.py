"""BraTS folders of any year: which files make up which case, by their names alone.

Three layouts are known, at any depth and in any mixture: 2018-2021 (``{case}_t1.nii.gz``),
2023-2024 (``{case}-t1n.nii.gz``) and the Medical Segmentation Decathlon
(``imagesTr/BRATS_001.nii.gz``, all four modalities in one file).
"""

import re
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prod9.errors import Prod9Error

MODALITIES = ("T1", "T1ce", "T2", "FLAIR")
Release = Literal["2018-2021", "2023-2024", "msd"]

_SEGMENTATION, _ALL_FOUR = "the segmentation", "the four modalities"
_ROLES = (*MODALITIES, _SEGMENTATION)
_ENDINGS: dict[Release, dict[str, str]] = {
    "2018-2021": dict(zip(_ROLES, ("_t1", "_t1ce", "_t2", "_flair", "_seg"), strict=True)),
    "2023-2024": dict(zip(_ROLES, ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"), strict=True)),
}
_MEANINGS: dict[str, tuple[Release, str]] = {
    ending: (release, role) for release, row in _ENDINGS.items() for role, ending in row.items()
}
_FILE = re.compile(rf"(.+)({'|'.join(_MEANINGS)})\.nii(?:\.gz)?", re.IGNORECASE)
_DECATHLON_FILE = re.compile(r"(BRATS_\d+)\.nii(?:\.gz)?", re.IGNORECASE)
_CASE_FOLDER = re.compile(r"brats(?:\d+_\w*\d|(?:-[a-z]+)+-\d+(?:-\d+)?)", re.IGNORECASE)
_WITH_TIMEPOINT = re.compile(r"(brats(?:-[a-z]+)+-\d+)-\d{1,3}", re.IGNORECASE)
_NIFTI = (".nii", ".nii.gz")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".7z", ".rar")


@dataclass(frozen=True)
class Case:
    """One scan: its four modalities, by file."""

    name: str
    subject: str
    """The name without the timepoint where it has one (2023-2024), else the name."""
    release: Release
    files: Mapping[str, Path] = field(hash=False)
    """By modality, in the order of ``MODALITIES``; for ``msd`` the same 4D file four times."""
    segmentation: Path | None


@dataclass(frozen=True)
class BadCase:
    """A case that cannot be used."""

    name: str
    cause: str
    """A clause that goes on from the name, such as ``has no T2 (no file ending in ...)``."""


@dataclass(frozen=True)
class Cohort:
    """What a folder holds."""

    root: Path
    cases: tuple[Case, ...]
    """Sorted by name; names are unique."""
    bad: tuple[BadCase, ...]
    """Sorted by name."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects of ``cases``, sorted, each once."""
        return tuple(sorted({case.subject for case in self.cases}))

    @property
    def releases(self) -> tuple[Release, ...]:
        """The releases of ``cases``, sorted, each once."""
        return tuple(sorted({case.release for case in self.cases}))


_Place = tuple[Path, Release]  # a folder, and how a case's files are named there
_Files = dict[str, list[Path]]  # by modality, _SEGMENTATION or _ALL_FOUR


def find_cases(root: Path) -> Cohort:
    """Return the cases below a folder, from the names of its files; no file is opened.

    Raises:
        Prod9Error: the folder is missing, cannot be listed, or holds no case of any known layout.
    """
    if not root.is_dir():
        what = (
            "is a file, not a folder; unpack it if it is an archive,"
            if root.exists()
            else ("does not exist; check the path")
        )
        raise Prod9Error(f"{root} {what} and give the folder that holds the BraTS cases.")
    found: dict[str, dict[_Place, _Files]] = defaultdict(dict)
    others: dict[Path, list[Path]] = {}
    bare: list[Path] = []
    for folder, files, is_leaf in _walk(root, set()):
        meanings = {path: _meaning(path) for path in files}
        others[folder] = [path for path, meaning in meanings.items() if meaning is None]
        for path, meaning in meanings.items():
            if meaning is not None:
                name, release, role = meaning
                of_case = found[name].setdefault((folder, release), {})
                of_case.setdefault(role, []).append(path)
        if is_leaf and folder != root and len(others[folder]) == len(files):
            bare.append(folder)
    for folder in bare:  # a case that lost all its files must not be skipped
        if _CASE_FOLDER.fullmatch(folder.name) and folder.name not in found:
            release = "2023-2024" if "-" in folder.name else "2018-2021"
            found[folder.name][folder, release] = {}
    if not found:
        raise _nothing_found(root, others)

    crowd: dict[Path, set[str]] = defaultdict(set)
    for name, places in found.items():
        for folder, _ in places:
            crowd[folder].add(name)
    cases: list[Case] = []
    bad: list[BadCase] = []
    for name, places in sorted(found.items()):
        cause = _cause(places)
        if cause is None:
            (folder, release), files = next(iter(places.items()))
            odd = others[folder] if len(crowd[folder]) == 1 else []
            cases.append(_case(name, release, files, odd))
        else:
            bad.append(BadCase(name, cause))
    return Cohort(root, tuple(cases), tuple(bad))


def _walk(folder: Path, seen: set[Path]) -> Generator[tuple[Path, list[Path], bool]]:
    """Yield each folder, its files, and whether it has no folders of its own."""
    try:
        real = folder.resolve()
        # "._x" and "__MACOSX" are what macOS leaves in archives.
        entries = sorted(e for e in folder.iterdir() if not e.name.startswith((".", "__MACOSX")))
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        raise Prod9Error(f"{folder} cannot be listed ({error}); make it readable.") from error
    if real in seen:  # links may lead in circles, or to the same case by two ways
        return
    seen.add(real)
    folders = [entry for entry in entries if entry.is_dir()]
    yield folder, [entry for entry in entries if entry not in folders], not folders
    for inner in folders:
        yield from _walk(inner, seen)


def _meaning(path: Path) -> tuple[str, Release, str] | None:
    """Return a file's case, release and role, if its name has any."""
    if match := _FILE.fullmatch(path.name):
        release, role = _MEANINGS[match[2].lower()]
        return match[1], release, role
    match = _DECATHLON_FILE.fullmatch(path.name)
    if match and not path.absolute().parent.name.lower().startswith("labels"):
        return match[1], "msd", _ALL_FOUR
    return None


def _cause(places: dict[_Place, _Files]) -> str | None:
    """Return what keeps a case from being used, if anything."""
    (folder, release), files = next(iter(places.items()))
    if len(places) > 1:
        one_each = [next(iter(f.values()))[0] if f else place[0] for place, f in places.items()]
        return f"is there more than once, as {_and(one_each)}; keep one of them"
    for role, paths in files.items():
        if len(paths) > 1:
            return f"has more than one file of {role}, {_and(paths)}; keep one of them"
    if release == "msd":
        return None
    missing = [
        f"no {role} (no file ending in {ending}.nii.gz or {ending}.nii)"
        for role, ending in _ENDINGS[release].items()
        if role not in files and role != _SEGMENTATION
    ]
    return f"has {_and(missing)} in {folder}" if missing else None


def _case(name: str, release: Release, files: _Files, others: list[Path]) -> Case:
    """Return a whole case; ``others`` are files beside it that can belong to it alone."""
    if release == "msd":
        image = files[_ALL_FOUR][0]
        return Case(name, name, release, dict.fromkeys(MODALITIES, image), _decathlon_labels(image))
    # One case of 2020 has a segmentation under its raw name, "W39_1998.09.19_Segm.nii".
    odd = [path for path in others if _is_nifti(path) and "seg" in path.name.lower()]
    segmentation = files.get(_SEGMENTATION) or (odd if len(odd) == 1 else [None])
    by_modality = {modality: files[modality][0] for modality in MODALITIES}
    return Case(name, subject_of(name), release, by_modality, segmentation[0])


def subject_of(case: str) -> str:
    """Return whose scan a case is, by its name: without the timepoint, where it has one."""
    timepoint = _WITH_TIMEPOINT.fullmatch(case)
    return timepoint[1] if timepoint else case


def _decathlon_labels(image: Path) -> Path | None:
    """Return ``labelsTr/BRATS_001.nii.gz`` for ``imagesTr/BRATS_001.nii.gz``, if it is there."""
    images = image.absolute().parent
    if not images.name.lower().startswith("images"):
        return None
    stem = image.name[: image.name.lower().index(".nii")]
    labels = images.with_name(f"labels{images.name[len('images') :]}")
    found = [labels / f"{stem}{suffix}" for suffix in (".nii.gz", ".nii")]
    return next((path for path in found if path.exists()), None)


def _nothing_found(root: Path, files: dict[Path, list[Path]]) -> Prod9Error:
    every = [path for paths in files.values() for path in paths]
    archives = [path for path in every if path.name.lower().endswith(_ARCHIVES)]
    niftis = [path for path in every if _is_nifti(path)]
    folders = [folder for folder in files if folder.parent == root and folder != root]
    if archives:
        hint = f"unpack the archive {archives[0]} first"
    elif niftis:
        hint = f"its {len(niftis)} NIfTI files have other names, such as {niftis[0]}; rename them"
    elif len(folders) == 1:
        hint = f"its only folder {folders[0]} holds none either; check that it was unpacked whole"
    else:
        hint = "give the folder that holds the cases"
    return Prod9Error(
        f"{root} holds no BraTS case: known are CASE/CASE_{{t1,t1ce,t2,flair}}.nii.gz (2018-2021), "
        "CASE/CASE-{t1n,t1c,t2w,t2f}.nii.gz (2023-2024) and imagesTr/BRATS_001.nii.gz (Medical "
        f"Segmentation Decathlon), at any depth, .nii.gz or .nii; {hint}."
    )


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(_NIFTI)


def _and(items: Iterable[object]) -> str:
    return " and ".join(map(str, items))
