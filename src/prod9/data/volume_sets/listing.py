"""Which volumes a folder holds, and of which class each is: by a manifest or by sub-folders."""

import csv
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeAlias, cast

from prod9.data.volume_files.stored_volume import SUFFIXES, volume_suffix
from prod9.data.volume_sets.volume_set import ONE_CLASS
from prod9.errors import Prod9Error

MANIFESTS = ("manifest.json", "manifest.csv")
TOKENS = ".tokens.npz"
"""What ``prod9 infer --save-tokens`` writes beside a volume."""

# Left out without a word, these would be missing from every figure.
_FOREIGN = (
    *(".mgz", ".mgh", ".nrrd", ".nhdr", ".dcm", ".ima", ".mha", ".mhd", ".mnc", ".gipl"),
    *(".hdr", ".img", ".img.gz", ".nii.bz2", ".nii.zst", ".npz", ".tif", ".tiff", ".h5", ".hdf5"),
)
# A million volumes; read whole, JSON takes some ten times as much memory.
_MOST_MANIFEST = 128 << 20
# The folder, its class sub-folders, and one more: to say that nothing is read from there.
_DEPTH = 3


@dataclass(frozen=True)
class ListedVolume:
    """One volume of a folder."""

    path: Path
    name: str
    """Its path inside the folder, without the suffix: ``0001``, or ``liver/0001``."""
    class_name: str


def list_volumes(folder: Path, manifest: Path | None = None) -> tuple[ListedVolume, ...]:
    """Find the volumes of a folder, sorted by name, and their classes.

    Volumes are the ``.nii``, ``.nii.gz`` and ``.npy`` in the folder. Classes come from ``manifest``
    or else from ``manifest.json`` (as ``prod9 generate`` writes it) or ``manifest.csv`` (columns
    ``file`` and ``class``) in the folder; without any, from sub-folders (``liver/0001.nii.gz``);
    without those, all are of one class. Hidden files, ``.tokens.npz`` and whatever is no volume by
    its name are left out.

    Args:
        folder: Is there.
        manifest: A ``.json`` or ``.csv`` file, anywhere; its paths are relative to ``folder``.

    Raises:
        Prod9Error: there is no volume; one is of an unknown format, lies too deep or
            beside class sub-folders, or shares its name; the manifest cannot be read, names a file
            that is not there or lies outside the folder, or leaves a volume out; a name does not
            print. The sentence names the file, and the line of a CSV.
    """
    files = {path.relative_to(folder).as_posix(): path for path in _volume_files(folder)}
    if not files:
        raise Prod9Error(
            f"{folder} holds no volume ({', '.join(SUFFIXES)}), neither itself nor in class "
            "sub-folders; name the folder the volumes are in."
        )
    manifest = manifest or _own_manifest(folder)
    if manifest is not None:
        classes = _classes_of_manifest(manifest, folder, files)
    else:
        classes = _classes_of_sub_folders(folder, list(files))
    found: dict[str, ListedVolume] = {}
    for file, path in files.items():
        name = file[: -len(volume_suffix(path))]
        _require_plain(file, "the name of a volume", folder)
        if name in found:
            raise Prod9Error(
                f"{found[name].path} and {path} have the same name but for the suffix; rename or "
                "remove one."
            )
        found[name] = ListedVolume(path, name, classes[file])
    return tuple(found[name] for name in sorted(found))


def _volume_files(folder: Path) -> list[Path]:
    """Return the volumes in a folder and below, and refuse formats that are not read."""
    with _readable(folder):
        files = list(_walk(folder, _DEPTH))
    for path in files:
        name = path.name.lower()
        if name.endswith(_FOREIGN) and not name.endswith(TOKENS):
            raise Prod9Error(
                f"{path} is of a format that prod9 does not read here; convert it to .nii.gz, or "
                "move it out of the folder."
            )
    return [path for path in files if path.name.lower().endswith(SUFFIXES)]


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            yield path
        elif depth > 1:
            yield from _walk(path, depth - 1)


def _classes_of_sub_folders(folder: Path, files: list[str]) -> dict[str, str]:
    nested = [file for file in files if "/" in file]
    for file in nested:
        class_name, _, rest = file.partition("/")
        if "/" in rest:
            raise Prod9Error(
                f"{folder / file} lies deeper than a class sub-folder; prod9 reads FOLDER/*.nii.gz "
                "and FOLDER/CLASS/*.nii.gz: name the folder above it, or add a manifest.csv."
            )
        _require_plain(class_name, "a class (sub-folder)", folder)
    if nested and len(nested) < len(files):
        beside = next(file for file in files if "/" not in file)
        raise Prod9Error(
            f"{folder} has volumes itself ({beside}) and in a sub-folder ({nested[0]}); move one "
            "kind away, or add a manifest.csv that gives each its class."
        )
    return {file: file.partition("/")[0] if nested else ONE_CLASS[0] for file in files}


def _own_manifest(folder: Path) -> Path | None:
    there = [folder / name for name in MANIFESTS if (folder / name).is_file()]
    if len(there) > 1:
        raise Prod9Error(f"{folder} has both {' and '.join(MANIFESTS)}; remove one.")
    return there[0] if there else None


def _classes_of_manifest(manifest: Path, folder: Path, files: dict[str, Path]) -> dict[str, str]:
    """Return the class of each of ``files``."""
    suffix = manifest.suffix.lower()
    if suffix not in (".json", ".csv"):
        raise Prod9Error(f"the manifest {manifest} must end in .json or .csv.")
    classes: dict[str, str] = {}
    rows = _json_rows(manifest) if suffix == ".json" else _csv_rows(manifest)
    for where, file, class_name in rows:
        strictest = PureWindowsPath(file)  # knows /, \ and drives
        if strictest.drive or strictest.root or ".." in strictest.parts:
            raise Prod9Error(
                f"{where} names {file!r}; a manifest's files lie inside the folder {folder}: give "
                "a path relative to it."
            )
        file = PurePosixPath(file).as_posix()
        if file not in files:
            raise Prod9Error(
                f"{where} names {file!r}, but {folder} has no such volume; correct or remove the "
                "entry."
            )
        if file in classes:
            raise Prod9Error(f"{where} names {file!r} a second time; remove one of the entries.")
        _require_plain(class_name, "a class", where)
        classes[file] = class_name
    for file, path in files.items():
        if file not in classes:
            raise Prod9Error(
                f"{manifest} has no entry for {path}; add one, or move the volume away."
            )
    return classes


_Row: TypeAlias = tuple[str, str, str]
"""Place for messages, file, class."""


def _csv_rows(manifest: Path) -> list[_Row]:
    with _readable(manifest), manifest.open(encoding="utf-8-sig", newline="") as file:
        _require_small(manifest)
        reader = csv.DictReader(file, strict=True)
        columns = [(column or "").strip() for column in reader.fieldnames or ()]
        if columns.count("file") != 1 or columns.count("class") != 1:
            raise Prod9Error(
                f"{manifest} must begin with a line that names the columns file and class, "
                f"separated by commas (it has: {', '.join(columns) or 'none'})."
            )
        reader.fieldnames = columns
        rows: list[_Row] = []
        for cells in reader:
            where = f"{manifest}, line {reader.line_num},"
            if None in cells:  # what the header has no name for: an unquoted comma in a class
                raise Prod9Error(
                    f"{where} has more than {len(columns)} columns; put a text that contains a "
                    'comma between double quotes (").'
                )
            name, class_name = ((cells[key] or "").strip() for key in ("file", "class"))
            rows.append(_row(where, name, class_name))
        return rows


def _json_rows(manifest: Path) -> list[_Row]:
    """Read a manifest as ``prod9 generate`` writes it."""
    with _readable(manifest):
        _require_small(manifest)
        content: Any = json.loads(manifest.read_text(encoding="utf-8-sig"))
    samples = cast(dict[str, Any], content).get("samples") if isinstance(content, dict) else None
    if not isinstance(samples, list):
        raise Prod9Error(
            f"{manifest} has no list `samples`, as `prod9 generate` writes it; give the classes in "
            "a manifest.csv instead."
        )
    rows: list[_Row] = []
    for number, sample in enumerate(cast(list[Any], samples)):
        entry = cast(dict[str, Any], sample) if isinstance(sample, dict) else {}
        where = f"{manifest}, samples[{number}],"
        rows.append(_row(where, entry.get("file"), entry.get("class")))
    return rows


def _row(where: str, file: object, class_name: object) -> _Row:
    if not (isinstance(file, str) and isinstance(class_name, str) and file and class_name):
        raise Prod9Error(f"{where} lacks a file or a class (both text); fill in both.")
    return where, file, class_name


def _require_small(manifest: Path) -> None:
    if manifest.stat().st_size > _MOST_MANIFEST:
        raise ValueError("it is larger than any manifest")


@contextmanager
def _readable(path: Path) -> Generator[None]:
    """Tell the user about a folder or manifest that cannot be read."""
    try:
        yield
    except OSError as error:
        raise Prod9Error(
            f"{path} cannot be read ({error.strerror or error}); check the path."
        ) from error
    except (ValueError, csv.Error, RecursionError) as error:  # ValueError: no JSON, no UTF-8
        raise Prod9Error(
            f"{path} is not readable as {path.suffix[1:].upper()} ({error}); write it again."
        ) from error


def _require_plain(text: str, what: str, where: Path | str) -> None:
    """Refuse what would garble a table or a page: control characters and the like."""
    if not text.isprintable() or not text.strip():
        raise Prod9Error(
            f"{where} has {text!r} as {what}, with characters that do not print; rename it."
        )
