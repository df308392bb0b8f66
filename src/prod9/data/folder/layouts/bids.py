"""BIDS: ``sub-01/[ses-1/]anat/sub-01_T1w.nii.gz`` and ``participants.tsv``."""

from collections.abc import Sequence
from pathlib import Path

from prod9.data.folder.layouts.documents import document_of, licence_of
from prod9.data.folder.layouts.found import Found, Gathering, relative
from prod9.data.folder.layouts.tables import columns_of, values_of
from prod9.data.volume_files.find import VolumeFile
from prod9.errors import Prod9Error


def recognise(root: Path, volumes: Sequence[VolumeFile]) -> Found | None:
    """Understand a folder of ``sub-*`` folders with ``anat`` in them; the rest is left out."""
    anatomy: list[tuple[VolumeFile, list[str]]] = []
    others: set[str] = set()
    for volume in volumes:
        folders = [*volume.path.relative_to(root).parts[:-1]]
        kind = folders.pop() if folders else ""
        if not folders or not folders[0].startswith("sub-"):
            others.add(folders[0] if folders else kind)
        elif kind != "anat" or len(folders) > 2:
            others.add(kind)
        else:
            anatomy.append((volume, folders))
    if not anatomy:
        return None
    gathering = Gathering(root)
    path = root / "participants.tsv"
    known = _participants(path) if path.is_file() else None
    for volume, folders in anatomy:
        scan, file = "_".join(folders), relative(root, volume)
        covariates = None if known is None else known.get(folders[0])
        if known is not None and covariates is None:
            gathering.bad(scan, f"({file}) has no line in {path}; add one for {folders[0]}")
            continue
        channel = volume.stem.rpartition("_")[2]
        gathering.add(scan, channel, file, subject=folders[0], covariates=covariates)
    about = document_of(root, "dataset_description.json") or {}
    layout = "BIDS"
    left_out = sorted(others - {""})
    if left_out:
        layout += f"; only anat is read, not {', '.join(left_out)}"
    return gathering.found(layout, name=str(about.get("Name", "")), licence=licence_of(about))


def _participants(path: Path) -> dict[str, dict[str, float | str | None]]:
    """Return what is known of each subject."""
    columns = columns_of(path)
    if "participant_id" not in columns:
        raise Prod9Error(f"{path} has no column participant_id; add it to its first line.")
    subjects = columns.pop("participant_id")
    rest = {name: values_of(texts) for name, texts in columns.items()}
    return {
        subject: {name: values[row] for name, values in rest.items()}
        for row, subject in enumerate(subjects)
    }
