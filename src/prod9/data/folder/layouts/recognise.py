"""All layouts, the most specific first."""

from collections.abc import Callable, Sequence
from pathlib import Path

from prod9.data.folder.layouts import bids, brats, data_list, decathlon, nnunet, tables
from prod9.data.folder.layouts.folders import (
    recognise_classes,
    recognise_flat,
    recognise_subjects,
)
from prod9.data.folder.layouts.found import Found
from prod9.data.volume_files.find import VolumeFile

Recognise = Callable[[Path, Sequence[VolumeFile]], Found | None]

LAYOUTS: dict[str, Recognise] = {
    "a CSV file with the columns subject, channel, file": tables.recognise,
    "BraTS of any year": brats.recognise,
    "nnU-Net (dataset.json, imagesTr/CASE_0000.nii.gz)": nnunet.recognise,
    "Medical Segmentation Decathlon (dataset.json)": decathlon.recognise,
    "a MONAI data list (JSON with training)": data_list.recognise,
    "BIDS (sub-01/anat/sub-01_T1w.nii.gz)": bids.recognise,
    "a folder for each subject": recognise_subjects,
    "a folder for each class": recognise_classes,
    "files in one folder": recognise_flat,
}
"""By what each is called in messages. A table comes first: it is what a user wrote by hand."""


def recognise(root: Path, volumes: Sequence[VolumeFile]) -> Found | None:
    """Return what the first layout that knows the folder finds.

    Args:
        root: the folder.
        volumes: all volumes below it.

    Raises:
        Prod9Error: a file that describes the folder is damaged.
    """
    found = (layout(root, volumes) for layout in LAYOUTS.values())
    return next((each for each in found if each is not None), None)
