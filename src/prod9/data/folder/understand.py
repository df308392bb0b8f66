"""From a folder of scans, or a file that describes one, to a description of it."""

from collections import Counter
from pathlib import Path

from prod9.config.dataset import DATASET_YAML, DatasetDescription, read_description, split_part
from prod9.data.folder.layouts.data_list import read_list
from prod9.data.folder.layouts.found import Found
from prod9.data.folder.layouts.recognise import LAYOUTS, recognise
from prod9.data.folder.layouts.tables import read_table
from prod9.data.volume_files.find import find_volumes
from prod9.errors import Prod9Error

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".7z", ".rar")


def understand(path: Path) -> tuple[DatasetDescription, tuple[str, ...]]:
    """Say what is where, by names alone; no volume is opened.

    Args:
        path: a folder (with a ``dataset.yaml`` in it, that counts), a ``dataset.yaml``, a CSV file
            or a data list in JSON.

    Returns:
        The description with all scans that have everything, and a sentence for each problem, in
        which it names the case and the file.

    Raises:
        Prod9Error: it does not exist, cannot be read, or holds no scan that can be used.
    """
    if not path.exists():
        raise Prod9Error(f"{path} does not exist; give a folder of scans.")
    if path.is_dir() and (path / DATASET_YAML).is_file():
        path = path / DATASET_YAML
    if path.suffix.lower() in (".yaml", ".yml"):
        return _described(path)
    root, found = (path, _in_folder(path)) if path.is_dir() else (path.parent, _in_file(path))
    if not found.scans:
        first = found.problems[0] if found.problems else f"{path} names no scans; add some."
        if len(found.problems) > 1:
            first = f"none of the scans of {path} can be used, and this is the first: {first}"
        raise Prod9Error(first)
    description = DatasetDescription(
        name=found.name or root.resolve().name or "scans",
        root=root,
        layout=found.layout,
        channels=found.channels,
        classes=found.classes,
        licence=found.licence,
        scans=found.scans,
    )
    return description, (*found.problems, *_lonely(description))


def _described(path: Path) -> tuple[DatasetDescription, tuple[str, ...]]:
    """Read a ``dataset.yaml``; scans whose files are gone are left out and said."""
    description = read_description(path)
    problems: dict[str, str] = {}
    for name, scan in description.scans.items():
        for file in scan.files.values():
            where = description.root / split_part(file)[0]
            if not where.exists():
                text = f"case {name} has no file {where} ({path}); correct the name."
                problems.setdefault(name, text)
    kept = {name: scan for name, scan in description.scans.items() if name not in problems}
    if not kept:
        raise Prod9Error(
            next(iter(problems.values()), f"{path} names no scans; add them under scans.")
        )
    description = description.model_copy(update={"scans": kept})
    return description, (*problems.values(), *_lonely(description))


def _lonely(description: DatasetDescription) -> tuple[str, ...]:
    """Return a sentence if there is only one subject: nobody is left to measure on."""
    subjects = {scan.subject for scan in description.scans.values()}
    if len(subjects) > 1:
        return ()
    file = next(iter(next(iter(description.scans.values())).files.values()))
    return (
        f"{description.root} has only one subject, {min(subjects)} ({file}); training and "
        "measuring need at least two.",
    )


def _in_file(path: Path) -> Found:
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return read_table(path)
        case ".json":
            return _in_folder(path.parent) if path.name == "dataset.json" else read_list(path)
        case _:
            raise Prod9Error(
                f"{path} is a file; give the folder of all scans, a {DATASET_YAML}, a CSV file or "
                "a data list in JSON."
            )


def _in_folder(root: Path) -> Found:
    try:
        volumes = find_volumes(root)
        found = recognise(root, volumes)
        others = [path for path in sorted(root.rglob("*")) if path.is_file()]
    except OSError as error:
        raise Prod9Error(f"{root} cannot be listed ({error}); make it readable.") from error
    if found is not None:
        return found
    kinds = Counter(path.suffix.lower() or "no ending" for path in others)
    what = [f"{n} {kind}" for kind, n in kinds.most_common(5)]
    hint = f"it holds {', '.join(what) or 'nothing'}"
    if beside := [volume.path for volume in volumes if volume.path.parent == root]:
        hint = f"volumes lie beside its sub-folders, such as {beside[0]}, as well as in them"
    if archives := [path for path in others if path.name.lower().endswith(_ARCHIVES)]:
        hint = f"unpack {archives[0]} first"
    raise Prod9Error(
        f"{root} is laid out in no known way ({hint}); known are {'; '.join(LAYOUTS)}; any other "
        "can be described in a CSV file (docs/own-data.md)."
    )
