"""The volumes below a folder: which files and which DICOM series."""

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from prod9.data.volume_files.dicom import is_dicom, series_of
from prod9.data.volume_files.stored_volume import READ_SUFFIXES, TOKENS, volume_stem
from prod9.errors import Prod9Error


@dataclass(frozen=True)
class VolumeFile:
    """Where a volume is: the arguments of ``read_volume``."""

    path: Path
    """A file, or the folder of a DICOM series."""
    part: str = ""
    """SeriesInstanceUID if the folder has several series."""
    series: str = field(default="", compare=False)
    """Number and description of the series if the folder has several."""

    @property
    def stem(self) -> str:
        """The file's name without the suffix, or the folder's, with ``-`` and ``series`` if any."""
        stem = volume_stem(self.path)
        return f"{stem}-{self.series}" if self.series else stem


def find_volumes(root: Path) -> tuple[VolumeFile, ...]:
    """Return the volumes below a folder, sorted; empty where it holds none.

    Volumes are files with one of ``READ_SUFFIXES`` and DICOM series, each a folder of slices. Not
    among them: token files, pairs of ``.hdr`` and ``.img``, and what :func:`walk` skips.

    Raises:
        Prod9Error: the folder or one below it is missing or cannot be read; SimpleITK is not
            installed and a folder holds DICOM files.
    """
    found: list[VolumeFile] = []
    for folder, files in walk(root):
        slices = [file for file in files if is_dicom(file)]
        if slices:
            found += [VolumeFile(folder, uid, name) for uid, name in series_of(folder, slices)]
        for file in files:
            name = file.name.lower()
            if name.endswith(READ_SUFFIXES) and not name.endswith(TOKENS):
                found.append(VolumeFile(file))
    return tuple(sorted(found, key=lambda volume: (volume.path, volume.part)))


def walk(folder: Path, seen: set[Path] | None = None) -> Generator[tuple[Path, list[Path]]]:
    """Yield each folder from ``folder`` downwards with its files, sorted; hidden ones are skipped.

    Args:
        folder: where to begin.
        seen: folders that are left out, and to which those that were met are added.

    Raises:
        Prod9Error: a folder is missing or cannot be listed.
    """
    seen = set() if seen is None else seen
    try:
        real = folder.resolve()
        # "._x" and "__MACOSX" are what macOS leaves in archives.
        entries = sorted(e for e in folder.iterdir() if not e.name.startswith((".", "__MACOSX")))
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        raise Prod9Error(f"{folder} cannot be listed ({error}); make it readable.") from error
    if real in seen:  # links may lead in circles, or to the same case by two ways
        return
    seen.add(real)
    folders = [entry for entry in entries if entry.is_dir()]
    yield folder, [entry for entry in entries if entry not in folders]
    for inner in folders:
        yield from walk(inner, seen)
