"""One volume of a described folder."""

from pathlib import Path

from prod9.config.dataset import split_part
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume


def read_part(root: Path, file: str) -> StoredVolume:
    """Read ``FILE`` or ``FILE[PART]``, as ``dataset.yaml`` names it.

    Raises:
        Prod9Error: what :func:`read_volume` raises.
    """
    name, part = split_part(file)
    return read_volume(root / name, part)
