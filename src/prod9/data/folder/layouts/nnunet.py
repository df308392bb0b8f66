"""nnU-Net: ``imagesTr/CASE_0000.nii.gz``, a file for each channel, and ``labelsTr/CASE.nii.gz``."""

import re
from collections.abc import Sequence
from pathlib import Path

from prod9.data.folder.layouts.documents import document_of, licence_of, numbered
from prod9.data.folder.layouts.found import Found, Gathering, relative
from prod9.data.volume_files.find import VolumeFile

_IMAGE = re.compile(r"(.+)_(\d{4})")


def recognise(root: Path, volumes: Sequence[VolumeFile]) -> Found | None:
    """Understand a folder with ``dataset.json`` and images whose names end in ``_0000``."""
    path = root / "dataset.json"
    document = document_of(root)
    if document is None:
        return None
    images = [volume for volume in volumes if volume.path.parent == root / "imagesTr"]
    if not any(_IMAGE.fullmatch(volume.stem) for volume in images):
        return None
    key = "channel_names" if "channel_names" in document else "modality"
    channels = numbered(document, key, path)
    gathering = Gathering(root)
    for volume in images:
        match = _IMAGE.fullmatch(volume.stem)
        file = relative(root, volume)
        if match is None:
            gathering.bad(volume.stem, f"({file}) has no channel number such as _0000; rename it")
        elif int(match[2]) >= len(channels):
            gathering.bad(
                match[1], f"has the channel {match[2]} ({file}), which {path} does not name; add it"
            )
        else:
            gathering.add(match[1], channels[int(match[2])], file)
    for volume in volumes:
        if volume.path.parent == root / "labelsTr":
            gathering.add(volume.stem, "label", relative(root, volume))
    layout = "nnU-Net"
    tests = {volume.stem for volume in volumes if volume.path.parent == root / "imagesTs"}
    if tests:
        layout += f"; {len(tests)} images of imagesTs are left out, as they have no label"
    return gathering.found(layout, channels, str(document.get("name", "")), licence_of(document))
