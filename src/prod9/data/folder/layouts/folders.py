"""Folders without a description: a folder for each subject or each class, or just files."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from prod9.config.dataset import Split
from prod9.data.folder.layouts.found import SPLIT_NAMES, Found, Gathering, relative
from prod9.data.folder.layouts.names import channels_of, is_channel, split_name
from prod9.data.volume_files.find import VolumeFile

_SESSION = re.compile(
    r"(ses(sion)?|tp|time(point)?|visit|day|week|month|year)[-_ ]?\d+|[mv]\d{1,2}|"
    r"\d{8}|\d{4}-\d\d-\d\d|baseline|follow-?_?up.*",
    re.IGNORECASE,
)
_Folders = dict[tuple[str, ...], list[VolumeFile]]


def recognise_subjects(root: Path, volumes: Sequence[VolumeFile]) -> Found | None:
    """Understand sub-folders that each hold the channels of one scan.

    So they do where more than half of them share a file name, once the case's own name is taken
    away, or each has a name of its own and holds one file. Above them there may be a folder of the
    split (``train``), then one of the subject (``sub-01/ses-1``) or of the class (``AD/sub-01``).
    """
    folders = _by_folder(root, volumes)
    if not folders or () in folders:
        return None
    channels = {
        path: channels_of([volume.stem for volume in inside], path[-1])
        for path, inside in folders.items()
    }
    if len({path[-1] for path in folders}) == sum(map(len, folders.values())) > 2:
        if not any(is_channel(names[0]) for names in channels.values()):
            channels = {path: ["image"] for path in channels}
    elif not _share_names(list(channels.values())):
        return None
    splits, paths = _without_splits([*folders])
    gathering = Gathering(root)
    sessions = all(len(path) > 1 and _SESSION.fullmatch(path[-1]) for path in paths)
    for path, split, folder in zip(paths, splits, folders, strict=True):
        *above, last = path
        scan, subject, class_name = last, last, None
        if sessions:
            scan, subject, above = f"{above[-1]}_{last}", above[-1], above[:-1]
        if above and all(len(each) == len(path) for each in paths):
            class_name = "/".join(above)
        for channel, volume in zip(channels[folder], folders[folder], strict=True):
            gathering.add(
                scan,
                channel,
                relative(root, volume),
                subject=subject,
                class_name=class_name,
                split=split,
            )
    return gathering.found("a folder for each subject")


def recognise_classes(root: Path, volumes: Sequence[VolumeFile]) -> Found | None:
    """Understand sub-folders that each hold the scans of one class."""
    folders = _by_folder(root, volumes)
    splits, paths = _without_splits([*folders])
    if () in folders or () in paths or len({*paths}) < 2:
        return None
    gathering = Gathering(root)
    for path, split, folder in zip(paths, splits, folders, strict=True):
        for volume in folders[folder]:
            scan, channel = split_name(volume.stem)
            name = "/".join(path)
            # Numbers begin anew in each folder: they are no subject's name.
            scan = "_".join((*path, scan)) if scan.isdigit() else scan
            file = relative(root, volume)
            gathering.add(scan, channel or "image", file, class_name=name, split=split)
    return gathering.found("a folder for each class")


def recognise_flat(root: Path, volumes: Sequence[VolumeFile]) -> Found | None:
    """Understand files in one folder: ``CASE.nii.gz``, or ``CASE_t1.nii.gz``, ``CASE_seg.nii.gz``.

    Folders of the splits may be above them.
    """
    folders = _by_folder(root, volumes)
    splits, paths = _without_splits([*folders])
    if len({*paths}) != 1:
        return None
    gathering = Gathering(root)
    for folder, split in zip(folders, splits, strict=True):
        for volume in folders[folder]:
            scan, channel = split_name(volume.stem)
            gathering.add(scan, channel or "image", relative(root, volume), split=split)
    return gathering.found("files in one folder")


def _by_folder(root: Path, volumes: Sequence[VolumeFile]) -> _Folders:
    """Return volumes by the folders above them, without a last one that all have (``anat``)."""
    folders: _Folders = {}
    for volume in volumes:
        folders.setdefault(volume.path.relative_to(root).parent.parts, []).append(volume)
    while len({path[-1:] for path in folders}) == 1 < len(folders):
        folders = {path[:-1]: inside for path, inside in folders.items()}
    return folders


def _share_names(channels: list[list[str]]) -> bool:
    """Say whether most folders have a channel in common, or one alone has known channels."""
    names = {word for words in channels for word in words}
    if len(channels) == 1:
        return all(is_channel(name) for name in names)
    counts = Counter(word for words in channels for word in {*words} if not word.isdigit())
    return bool(counts) and 2 * max(counts.values()) > len(channels)


def _without_splits(
    folders: list[tuple[str, ...]],
) -> tuple[list[Split | None], list[tuple[str, ...]]]:
    """Take away first folders that are called as the splits are, if all are."""
    if not all(path and path[0].lower() in SPLIT_NAMES for path in folders):
        return [None] * len(folders), folders
    return [SPLIT_NAMES[path[0].lower()] for path in folders], [path[1:] for path in folders]
