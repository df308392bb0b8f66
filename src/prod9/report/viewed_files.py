"""Which NIfTI files are shown: those that were named, and those in folders."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prod9.data.volume_files.read import open_nifti
from prod9.errors import Prod9Error

_NIFTI = re.compile(r"[^.].*\.nii(\.gz)?", re.IGNORECASE)
_ADVICE = (
    "give .nii or .nii.gz files, or folders of them. An array becomes one with "
    "nibabel.save(nibabel.Nifti1Image(array, affine), 'volume.nii.gz')."
)


class ViewedFile(NamedTuple):
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
        elif not _is_named_nifti(path):
            raise Prod9Error(f"{path} is no NIfTI file; {_ADVICE}")
        else:
            found.append(_viewed("files", path))
    for file in found:
        open_nifti(file.path)  # a broken file is told of here and not by a browser
    return found


def _in_folder(folder: Path) -> list[ViewedFile]:
    try:
        groups = [folder, *sorted(path for path in folder.glob("[!.]*") if path.is_dir())]
        found = [
            _viewed(str(group), path)
            for group in groups
            for path in sorted(group.iterdir())
            if _is_named_nifti(path)
        ]
    except OSError as error:
        raise Prod9Error(
            f"{folder} cannot be read: {error.strerror or error}; change its permissions or choose "
            "another folder."
        ) from error
    if not found:
        raise Prod9Error(f"{folder} has no NIfTI files in it; {_ADVICE}")
    return found


def _is_named_nifti(path: Path) -> bool:
    return _NIFTI.fullmatch(path.name) is not None and path.is_file()


def _viewed(group: str, path: Path) -> ViewedFile:
    return ViewedFile(group, re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE), path)
