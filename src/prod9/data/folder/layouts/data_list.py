"""MONAI data lists: JSON with ``training``, ``validation`` and ``testing`` lists of files."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from prod9.config.dataset import Split
from prod9.data.folder.layouts.documents import Document, entries_of, licence_of, read_document
from prod9.data.folder.layouts.found import SPLIT_NAMES, Found, Gathering
from prod9.data.folder.layouts.names import channels_of, is_volume, posix, stem_of
from prod9.data.volume_files.find import VolumeFile
from prod9.errors import Prod9Error

_LARGEST = 1e300
_SUBJECT = ("subject", "subject_id", "patient", "patient_id", "id")


def recognise(root: Path, volumes: Sequence[VolumeFile]) -> Found | None:
    """Understand a folder by the only JSON file in it that has a ``training`` list."""
    lists: list[Path] = []
    for path in sorted(root.glob("*.json")):
        with suppress(Prod9Error):  # one of many files, and perhaps of something else
            if isinstance(read_document(path).get("training"), list):
                lists.append(path)
    return read_list(lists[0]) if len(lists) == 1 else None


def read_list(path: Path) -> Found:
    """Understand a data list; its files are relative to its own folder.

    In an entry, every text that names a volume is a channel (``image`` may be a list of them), a
    ``label`` that names none is the class, ``fold`` 0 is for validation where there is no list for
    it, and the rest is covariates.

    Raises:
        Prod9Error: it cannot be read, or is no data list.
    """
    document = read_document(path)
    lists = {key: entries_of(document, key, path) for key in document if key.lower() in SPLIT_NAMES}
    if not any(lists.values()):
        raise Prod9Error(
            f'{path} is no data list; known is {{"training": [{{"image": FILE, "label": FILE}}]}} '
            "(and validation, testing)."
        )
    validation = any(SPLIT_NAMES[key.lower()] == "val" for key, each in lists.items() if each)
    folds = any(
        isinstance(entry, dict) and "fold" in entry for each in lists.values() for entry in each
    )
    gathering = Gathering(path.parent)
    for key, entries in lists.items():
        for index, entry in enumerate(entries):
            where = f"{path}, {key}[{index}]"
            if not isinstance(entry, dict):
                gathering.problems.append(f"{where} is no mapping of keys to values; repair it.")
                continue
            entry = cast(Document, entry)
            split: Split | None = SPLIT_NAMES[key.lower()]
            if split == "train" and not validation:
                fold = entry.get("fold")
                split = ("train" if fold else "val") if folds else None
                if folds and fold is None:
                    name = _name(entry, where)
                    gathering.bad(name, f"has no fold ({where}), though others have; give it one")
            _add(gathering, entry, split, where)
    return gathering.found(
        f"data list {path.name}", name=str(document.get("name", "")), licence=licence_of(document)
    )


def _add(gathering: Gathering, entry: Document, split: Split | None, where: str) -> None:
    """Add an entry of a list."""
    files: dict[str, str] = {key: value for key, value in entry.items() if is_volume(value)}
    images = entry.get("image")
    if isinstance(images, list) and images and all(is_volume(each) for each in images):
        paths = cast("list[str]", images)
        files |= dict(zip(channels_of([*map(stem_of, paths)], "image"), paths, strict=True))
    if not files.keys() - {"label"}:
        gathering.problems.append(f"{where} names no image file; add image.")
        return
    label = entry.get("label")
    class_name = None if label is None or "label" in files else str(label)
    used = {*files, *_SUBJECT, "image", "label", "fold"}
    covariates = {key: _covariate(value) for key, value in entry.items() if key not in used}
    for channel, file in files.items():
        gathering.add(
            _name(entry, where),
            channel,
            posix(file),
            class_name=class_name,
            split=split,
            covariates=covariates,
            where=where,
        )


def _covariate(value: object) -> float | str | None:
    """Return a finite number, or anything else as text."""
    if isinstance(value, int | float) and abs(value) < _LARGEST:
        return float(value)
    return None if value is None or value != value else str(value)


def _name(entry: Document, where: str) -> str:
    """Return the subject of an entry, or the name of its first file."""
    for key in _SUBJECT:
        if entry.get(key) is not None:
            return str(entry[key])
    for value in entry.values():
        first = cast("list[Any]", value)[0] if isinstance(value, list) and value else value
        if is_volume(first):
            return stem_of(str(first))
    return where
