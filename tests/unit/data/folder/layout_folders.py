"""The same drawn volumes in every layout."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

SUBJECTS = ("sub-01", "sub-02", "sub-03")
SHAPE = (9, 8, 7)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def volume(subject: int, channel: str = "t1") -> np.ndarray:
    """Return grey values or labels, drawn by subject and channel."""
    random = np.random.default_rng([subject, sum(map(ord, channel))])
    if channel in ("seg", "label"):
        return (random.random(SHAPE) > 0.5).astype(np.uint8)
    return random.integers(1, 900, SHAPE).astype(np.int16)


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write a NIfTI file, or an npy, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        nib.Nifti1Image(array, affine).to_filename(path)
    return path


def brats(root: Path) -> None:
    for number in range(3):
        for channel in ("t1", "t1ce", "t2", "flair", "seg"):
            name = f"BraTS-{number}"
            write(root / name / f"{name}_{channel}.nii.gz", volume(number, channel))


def nnunet(root: Path) -> None:
    for number, subject in enumerate(SUBJECTS):
        write(root / "imagesTr" / f"{subject}_0000.nii.gz", volume(number))
        write(root / "imagesTr" / f"{subject}_0001.nii.gz", volume(number, "t2"))
        write(root / "labelsTr" / f"{subject}.nii.gz", volume(number, "seg"))
    labels = {"background": 0, "lesion": 1}
    about = {"channel_names": {"0": "t1", "1": "t2"}, "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(about))


def decathlon(root: Path) -> None:
    training: list[dict[str, str]] = []
    for number, subject in enumerate(SUBJECTS):
        both = np.stack([volume(number), volume(number, "t2")], axis=-1)
        write(root / "imagesTr" / f"{subject}.nii.gz", both)
        write(root / "labelsTr" / f"{subject}.nii.gz", volume(number, "seg"))
        name = f"{subject}.nii.gz"
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    about = {
        "name": "Drawn",
        "modality": {"0": "t1", "1": "t2"},
        "licence": "CC0",
        "training": training,
        "test": ["./imagesTs/x.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(about))


def bids(root: Path) -> None:
    lines = ["participant_id\tage\tsex"]
    for number, subject in enumerate(SUBJECTS):
        write(root / subject / "anat" / f"{subject}_T1w.nii.gz", volume(number))
        write(root / subject / "anat" / f"{subject}_T2w.nii.gz", volume(number, "t2"))
        write(root / subject / "func" / f"{subject}_bold.nii.gz", volume(number, "bold"))
        write(root / "derivatives" / subject / "anat" / f"{subject}_T1w.nii.gz", volume(9))
        lines.append(f"{subject}\t{30 + number}\t{'n/a' if number else 'F'}")
    (root / "participants.tsv").write_text("\n".join(lines))
    (root / "dataset_description.json").write_text('{"Name": "Drawn", "License": "CC0"}')


def subjects(root: Path) -> None:
    for number, subject in enumerate(SUBJECTS):
        for channel in ("t1", "t2", "seg"):
            write(root / subject / f"{channel}.nii.gz", volume(number, channel))


def prefixed(root: Path) -> None:
    for number, subject in enumerate(SUBJECTS):
        for channel in ("t1", "t2", "seg"):
            write(root / subject / f"{subject}_{channel}.nii.gz", volume(number, channel))


def table(root: Path) -> None:
    lines = ["subject,channel,file,age"]
    for number, subject in enumerate(SUBJECTS):
        for channel in ("t1", "t2", "seg"):
            write(root / "scans" / f"{number}{channel}.nii.gz", volume(number, channel))
            lines.append(f"{subject},{channel},scans/{number}{channel}.nii.gz,{30 + number}")
    (root / "list.csv").write_text("\n".join(lines))


def data_list(root: Path) -> None:
    training: list[dict[str, object]] = []
    for number, subject in enumerate(SUBJECTS):
        for channel in ("t1", "t2", "seg"):
            write(root / channel / f"{subject}.nii.gz", volume(number, channel))
        name = f"{subject}.nii.gz"
        entry = {"t1": f"t1/{name}", "t2": f"t2/{name}", "label": f"seg/{name}", "fold": number}
        training.append(entry)
    (root / "list.json").write_text(json.dumps({"training": training}))


def flat(root: Path) -> None:
    for number, subject in enumerate(SUBJECTS):
        for channel in ("t1", "t2", "seg"):
            write(root / f"{subject}_{channel}.nii.gz", volume(number, channel))


def classes(root: Path) -> None:
    for number, subject in enumerate(SUBJECTS):
        write(root / ("ill" if number else "well") / f"{subject}.nii.gz", volume(number))


def one_channel(root: Path) -> None:
    for number, subject in enumerate(SUBJECTS):
        write(root / f"{subject}.nii.gz", volume(number))


MAKERS: dict[str, Callable[[Path], None]] = {
    "BraTS": brats,
    "nnU-Net": nnunet,
    "Medical Segmentation Decathlon": decathlon,
    "BIDS": bids,
    "table list.csv": table,
    "data list list.json": data_list,
    "a folder for each subject": subjects,
    "a folder for each subject, prefixed": prefixed,
    "a folder for each class": classes,
    "files in one folder": flat,
    "files in one folder, one channel": one_channel,
}
