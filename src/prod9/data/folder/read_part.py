"""One volume of a described folder."""

from pathlib import Path

from prod9.config.dataset import split_part
from prod9.data.volume_files.read import open_nifti, read_nifti, read_volume
from prod9.data.volume_files.stored_volume import StoredVolume, times
from prod9.errors import Prod9Error
from prod9.shapes import MAX_VOXELS

_MOST_PARTS = 16


def read_part(root: Path, file: str) -> StoredVolume:
    """Read ``FILE`` or ``FILE[PART]``, as ``dataset.yaml`` names it; see :func:`read_volume`.

    Raises:
        Prod9Error: what :func:`read_volume` raises, or there is no such part.
    """
    name, part = split_part(file)
    path = root / name
    if not part:
        return read_volume(path)
    image = open_nifti(path)
    shape = tuple(map(int, image.shape))
    if len(shape) != 4 or not part.isdecimal() or int(part) >= shape[3]:
        raise Prod9Error(
            f"{path} has the shape {times(shape)} and so no volume {part}; correct the number."
        )
    stored, affine = read_nifti(path, image, _MOST_PARTS * MAX_VOXELS)
    return StoredVolume.of(stored[..., int(part)], path, affine, image.header)
