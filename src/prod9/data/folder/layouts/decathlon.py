"""Medical Segmentation Decathlon: ``dataset.json`` lists images and labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from prod9.data.folder.layouts.documents import document_of, entries_of, licence_of, numbered
from prod9.data.folder.layouts.found import Found, Gathering
from prod9.data.folder.layouts.names import posix, stem_of
from prod9.data.volume_files.find import VolumeFile
from prod9.errors import Prod9Error


def recognise(root: Path, volumes: Sequence[VolumeFile]) -> Found | None:
    """Understand a folder whose ``dataset.json`` has ``modality`` and a ``training`` list.

    Several modalities are in one 4D file, in the order of their numbers.
    """
    path = root / "dataset.json"
    document = document_of(root)
    if document is None or not document.keys() >= {"modality", "training"}:
        return None
    channels = numbered(document, "modality", path)
    gathering = Gathering(root)
    for index, entry in enumerate(entries_of(document, "training", path)):
        where = f"{path}, training[{index}]"
        fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
        image, label = fields.get("image"), fields.get("label")
        if not isinstance(image, str) or not isinstance(label, str | None):
            raise Prod9Error(f"{where} does not name one image and one label; repair it.")
        scan = stem_of(image)
        for number, channel in enumerate(channels):
            part = f"[{number}]" if len(channels) > 1 else ""
            gathering.add(scan, channel, posix(image) + part, where=where)
        if label is not None:
            gathering.add(scan, "label", posix(label), where=where)
    layout = "Medical Segmentation Decathlon"
    unlabelled = len(entries_of(document, "test", path))
    if unlabelled:
        layout += f"; {unlabelled} test images are left out, as they have no label"
    return gathering.found(layout, channels, str(document.get("name", "")), licence_of(document))
