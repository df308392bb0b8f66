"""A cohort of drawn cases as files, in the layouts of three BraTS releases."""

import gzip
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from nibabel.nifti1 import Nifti1Image

from prod9.data.phantom.case import PhantomCase, draw_case
from prod9.data.phantom.tumour import CORE, ENHANCING, OEDEMA
from prod9.errors import Prod9Error
from prod9.files import atomic_write, remove_leftovers, temporary_for, write_text

Release: TypeAlias = Literal["2021", "2023", "msd"]

# In every file's header: nobody takes it for a patient's, and nothing else is ever replaced.
MARK = "prod9 phantom, drawn from the MNI152 2009a template; not a patient"

_SUFFIXES = {
    "2021": {"T1": "_t1", "T1ce": "_t1ce", "T2": "_t2", "FLAIR": "_flair"},
    "2023": {"T1": "-t1n", "T1ce": "-t1c", "T2": "-t2w", "FLAIR": "-t2f"},
}
_SEGMENTATION = {"2021": "_seg", "2023": "-seg"}
_LABELS = {
    "2021": {CORE: 1, OEDEMA: 2, ENHANCING: 4},
    "2023": {CORE: 1, OEDEMA: 2, ENHANCING: 3},
    "msd": {OEDEMA: 1, CORE: 2, ENHANCING: 3},
}
_MSD_CHANNELS = ("FLAIR", "T1", "T1ce", "T2")
_MSD_DESCRIPTION = {
    "name": "BRATS",
    "description": MARK,
    "reference": "ICBM152 2009a nonlinear symmetric template, McConnell Brain Imaging Centre",
    "tensorImageSize": "4D",
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {
        "0": "background",
        "1": "edema",
        "2": "non-enhancing tumor",
        "3": "enhancing tumour",
    },
}


def make_phantom(
    folder: Path,
    *,
    cases: int,
    release: Release,
    seed: int,
    overwrite: bool = False,
    voxel_mm: float = 1.0,
    on_case: Callable[[int], None] = lambda index: None,
) -> None:
    """Write cases 0 to ``cases - 1`` of the cohort ``seed``, each whole or not at all.

    The same seed gives the same cases in every release, and the same bytes each time.

    Args:
        folder: Where; made if it is missing.
        cases: How many, at least 1.
        release: The layout, with its names and its labels: ``2021``, ``2023`` or ``msd`` (the
            Medical Segmentation Decathlon's Task01_BrainTumour).
        seed: Of the cohort, at least 0.
        overwrite: Write into a folder that is not empty. Phantoms of the same names are replaced,
            all else is left as it is.
        voxel_mm: The voxels' side, see :func:`prod9.data.phantom.case.draw_case`.
        on_case: Called with each case's index once it is written.

    Raises:
        Prod9Error: a number is out of its range, the folder is not empty (without ``overwrite``),
            something in it that is no phantom has a name that is needed (with ``overwrite``), or it
            cannot be written.
    """
    if cases < 1:
        raise Prod9Error(f"a phantom has at least 1 case, not {cases}.")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise Prod9Error(
            f"{folder} is not empty; choose another folder, or pass --overwrite to replace the "
            "phantoms in it."
        )
    names = {index: _case_name(release, index) for index in range(cases)}
    for name in names.values():
        for place in _places(release, name):
            _require_replaceable(folder / place)
    description = folder / "dataset.json"
    if release == "msd":
        _require_replaceable(description)
    for index, name in names.items():
        _write_case(folder, release, name, draw_case(seed, index, voxel_mm=voxel_mm))
        on_case(index)
    if release == "msd":
        write_text(description, _msd_description(folder))


def _case_name(release: Release, index: int) -> str:
    if release == "2021":
        return f"BraTS2021_{index:05d}"
    if release == "2023":
        return f"BraTS-GLI-{index:05d}-000"
    return f"BRATS_{index + 1:03d}"


def _places(release: Release, name: str) -> list[str]:
    """Return what makes up a case, a folder or files, in the order in which it appears."""
    if release == "msd":  # the label first: no image is ever seen without it
        return [f"labelsTr/{name}.nii.gz", f"imagesTr/{name}.nii.gz"]
    return [name]


def _require_replaceable(place: Path) -> None:
    if place.is_dir():
        files = sorted(path for path in place.rglob("*") if not path.is_dir())
    else:
        files = [place] if place.exists() else []
    for path in files:
        if not _is_phantom(path):
            raise Prod9Error(f"{path} is no phantom and is not replaced; choose another folder.")


def _is_phantom(path: Path) -> bool:
    try:
        if path.suffix != ".gz":
            return MARK in path.read_text("utf-8")
        with gzip.open(path) as file:
            return MARK.encode() in file.read(348)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error):
        return False


def _write_case(folder: Path, release: Release, name: str, case: PhantomCase) -> None:
    partial = temporary_for(folder / name)
    remove_leftovers(folder)
    lookup = np.zeros(256, np.uint8)
    for label, stored in _LABELS[release].items():
        lookup[label] = stored
    segmentation = lookup[case.segmentation]
    try:
        if release == "msd":
            image = np.stack([case.images[channel] for channel in _MSD_CHANNELS], axis=-1)
            _write_nifti(partial / "imagesTr" / f"{name}.nii.gz", image, case.affine)
            _write_nifti(partial / "labelsTr" / f"{name}.nii.gz", segmentation, case.affine)
        else:
            inside = partial / name
            for modality, suffix in _SUFFIXES[release].items():
                path = inside / f"{name}{suffix}.nii.gz"
                _write_nifti(path, case.images[modality], case.affine)
            path = inside / f"{name}{_SEGMENTATION[release]}.nii.gz"
            _write_nifti(path, segmentation, case.affine)
        for place in _places(release, name):
            target = folder / place
            target.parent.mkdir(exist_ok=True)
            if target.is_dir():  # a folder cannot take another's place, a file can
                target.rename(partial / "replaced")
            (partial / place).replace(target)
    except OSError as error:
        raise Prod9Error(
            f"cannot write the case {name} into {folder}: {error.strerror or error}; free some "
            "space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    image: Any = Nifti1Image(array, affine)
    image.set_sform(affine, code="aligned")
    image.set_qform(affine, code="aligned")
    image.header.set_xyzt_units("mm", "sec" if array.ndim == 4 else None)
    image.header["descrip"] = MARK.encode()
    # Neither the time nor the temporary name goes into the file: its bytes are the same each time.
    with (
        atomic_write(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=2, fileobj=file, mtime=0) as zipped,
    ):
        zipped.write(image.to_bytes())


def _msd_description(folder: Path) -> str:
    names = sorted(path.name for path in (folder / "imagesTr").glob("BRATS_*.nii.gz"))
    training = [
        {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"}
        for name in names
        if (folder / "labelsTr" / name).is_file()
    ]
    counts = {"numTraining": len(training), "numTest": 0, "training": training, "test": []}
    return json.dumps(_MSD_DESCRIPTION | counts, indent=1) + "\n"
