"""Which volumes lie below a folder, by the names of its files; none is opened."""

from dataclasses import dataclass
from pathlib import Path

from prod9.data.volume_files.stored_volume import SUFFIXES, volume_suffix


@dataclass(frozen=True)
class VolumeFile:
    """A file (or folder of a DICOM series) that holds a volume."""

    path: Path
    part: str = ""
    """Which volume of several; "" where there is one."""

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.path.name[: -len(volume_suffix(self.path))]


def find_volumes(root: Path) -> tuple[VolumeFile, ...]:
    """Return the volumes at any depth below a folder, sorted by path; hidden ones are left out."""
    return tuple(
        VolumeFile(path)
        for path in sorted(root.rglob("*"))
        if path.name.lower().endswith(SUFFIXES)
        and path.is_file()
        and not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(root).parts)
    )
