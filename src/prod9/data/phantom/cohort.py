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

from prod9.data.brats.layouts import DECATHLON_CHANNELS, ENDINGS, MODALITIES, SEGMENTATION
from prod9.data.phantom.case import PhantomCase, draw_case
from prod9.data.phantom.tumour import CORE, ENHANCING, OEDEMA
from prod9.errors import Prod9Error
from prod9.files import atomic_write, remove_leftovers, temporary_for, write_errors, write_text

Release: TypeAlias = Literal["2021", "2023", "msd"]

MARK = "prod9 phantom, drawn from the MNI152 2009a template; not a patient"
"""In every file's header: it cannot be mistaken for a patient's, and nothing else is replaced."""

_LABELS = {
    "2021": {CORE: 1, OEDEMA: 2, ENHANCING: 4},
    "2023": {CORE: 1, OEDEMA: 2, ENHANCING: 3},
    "msd": {OEDEMA: 1, CORE: 2, ENHANCING: 3},
}
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
        folder: made if it is missing.
        cases: how many.
        release: the layout, with its names and its labels: ``2021``, ``2023`` or ``msd`` (the
            Medical Segmentation Decathlon's Task01_BrainTumour).
        seed: of the cohort, at least 0.
        overwrite: write into a folder that is not empty. Phantoms of the same names are replaced;
            other files are never replaced.
        voxel_mm: the voxels' side, see :func:`prod9.data.phantom.case.draw_case`.
        on_case: called with each case's index once it is written.
    """
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise Prod9Error(
            f"{folder} is not empty; choose another folder, or pass --overwrite to replace the "
            "phantoms in it."
        )
    names = [_case_name(release, index) for index in range(cases)]
    places = [place for name in names for place in _places(release, name)]
    for place in (*places, *(["dataset.json"] if release == "msd" else [])):
        _require_replaceable(folder / place)
    for index, name in enumerate(names):
        _write_case(folder, release, name, draw_case(seed, index, voxel_mm=voxel_mm))
        on_case(index)
    if release == "msd":
        write_text(folder / "dataset.json", _msd_description(folder))


def _case_name(release: Release, index: int) -> str:
    if release == "msd":
        return f"BRATS_{index + 1:03d}"
    return f"BraTS2021_{index:05d}" if release == "2021" else f"BraTS-GLI-{index:05d}-000"


def _places(release: Release, name: str) -> list[str]:
    """Return what makes up a case, a folder or files, in the order in which it appears."""
    if release == "msd":  # the label first: no image is ever seen without it
        return [f"labelsTr/{name}.nii.gz", f"imagesTr/{name}.nii.gz"]
    return [name]


def _require_replaceable(place: Path) -> None:
    paths = place.rglob("*") if place.is_dir() else [place]
    for path in sorted(path for path in paths if path.exists() and not path.is_dir()):
        try:
            content = path.read_bytes()
            own = MARK.encode() in (gzip.decompress(content) if path.suffix == ".gz" else content)
        except (OSError, EOFError, zlib.error):
            own = False
        if not own:
            raise Prod9Error(f"{path} is no phantom and is not replaced; choose another folder.")


def _write_case(folder: Path, release: Release, name: str, case: PhantomCase) -> None:
    lookup = np.zeros(256, np.uint8)
    for label, stored in _LABELS[release].items():
        lookup[label] = stored
    segmentation = lookup[case.segmentation]
    if release == "msd":
        image = np.stack([case.images[channel] for channel in DECATHLON_CHANNELS], axis=-1)
        files = {f"imagesTr/{name}.nii.gz": image, f"labelsTr/{name}.nii.gz": segmentation}
    else:
        ends = ENDINGS["2018-2021" if release == "2021" else "2023-2024"]
        files = {f"{name}/{name}{ends[m]}.nii.gz": case.images[m] for m in MODALITIES}
        files[f"{name}/{name}{ends[SEGMENTATION]}.nii.gz"] = segmentation
    partial = temporary_for(folder / name)
    remove_leftovers(folder)
    with write_errors(folder / name):
        try:
            for file, array in files.items():
                _write_nifti(partial / file, array, case.affine)
            for place in _places(release, name):
                target = folder / place
                target.parent.mkdir(exist_ok=True)
                if target.is_dir():  # a folder cannot take another's place, a file can
                    target.rename(partial / "replaced")
                (partial / place).replace(target)
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
