"""Which NIfTI files are shown: those that were named, and those in folders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prod9.data.volume_files.read import open_nifti
from prod9.errors import Prod9Error

SUFFIXES = (".nii", ".nii.gz")

_CONVERT = (
    "is an array without geometry; convert it to NIfTI first "
    "(nibabel.save(nibabel.Nifti1Image(array, affine), 'volume.nii.gz'))"
)


@dataclass(frozen=True)
class ViewedFile:
    """A NIfTI file to be shown."""

    group: str
    """The folder as it was given, or ``files``."""
    name: str
    """Of the file, without the suffix."""
    path: Path


def find_volumes(paths: Sequence[Path]) -> list[ViewedFile]:
    """Return the NIfTI files among ``paths`` and in the folders among them, sorted by name.

    A folder is a group of its own, and so is each folder directly inside it (classes, cases);
    deeper ones and hidden files are left out. The viewer shows the first volume of a series.

    Raises:
        Prod9Error: a path is missing, a folder has no volumes, or a file is no NIfTI.
    """
    found: list[ViewedFile] = []
    for path in paths:
        if path.is_dir():
            found += _in_folder(path)
        elif not path.exists():
            raise Prod9Error(f"{path} does not exist; check the path.")
        else:
            if not _is_named_nifti(path):
                what = _CONVERT if path.suffix == ".npy" else "is no .nii or .nii.gz file"
                raise Prod9Error(f"{path} {what}.")
            found.append(ViewedFile("files", _stem(path), path))
    for file in found:
        open_nifti(file.path)  # a broken file is told of here and not by a browser
    return found


def _in_folder(folder: Path) -> list[ViewedFile]:
    found: list[ViewedFile] = []
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        for group in (folder, *(path for path in inside if path.is_dir())):
            files = sorted(path for path in group.iterdir() if _is_named_nifti(path))
            found += [ViewedFile(str(group), _stem(path), path) for path in files]
    except OSError as error:
        raise Prod9Error(
            f"{folder} cannot be read: {error.strerror or error}; change its permissions or choose "
            "another folder."
        ) from error
    if not found:
        arrays = next((path for path in inside if path.suffix == ".npy"), None)
        more = f"; {arrays.name} {_CONVERT}" if arrays else "; name another folder"
        raise Prod9Error(f"{folder} has no .nii or .nii.gz files in it{more}.")
    return found


def _is_named_nifti(path: Path) -> bool:
    name = path.name
    return not name.startswith(".") and name.lower().endswith(SUFFIXES) and path.is_file()


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
