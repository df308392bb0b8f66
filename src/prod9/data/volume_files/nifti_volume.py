"""A NIfTI volume, judged before its voxels are read: its kind, its shape, its room, its packing."""

import gzip
import math
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from prod9.data.volume_files.nifti_header import BROKEN, NiftiImage, is_gzip, open_nifti, unreadable
from prod9.data.volume_files.stored_volume import NiftiHeader, require_real, spatial_sides
from prod9.errors import Prod9Error
from prod9.runtime.memory_limits import DEFLATE_RATIO, require_memory
from prod9.shapes import MAX_VOXELS

# Behind the last voxel of a packed file nothing follows, and zeros without end pack well.
_MOST_BEHIND_VOXELS = 1 << 20


@contextmanager
def nifti_errors(path: Path) -> Generator[None]:
    """Tell the user about a file that nibabel or gzip cannot read in the block.

    Raises:
        Prod9Error: the block raised one of ``BROKEN``.
    """
    try:
        yield
    except BROKEN as error:
        raise unreadable(path, error) from error


def open_volume(path: Path) -> NiftiImage:
    """Read the header, and refuse what is no volume before memory is allocated for it.

    Raises:
        Prod9Error: the file is missing, no NIfTI, not of real numbers, not 3D, empty, or as
            :func:`require_room`.
    """
    image = open_nifti(path)
    shape = tuple(int(side) for side in image.shape)
    require_real(cast(NiftiHeader, image.header).get_data_dtype(), path)
    spatial_sides(shape, path)
    require_room(path, image, MAX_VOXELS)
    return image


def require_room(path: Path, image: NiftiImage, most: int) -> None:
    """Refuse a header that declares more voxels than the file or the machine can hold.

    Args:
        path: Of the file.
        image: Its header; the shape has no side below 0.
        most: Voxels.

    Raises:
        Prod9Error: it declares more than ``most`` voxels, than the bytes of the file can hold, or
            than fit into this machine's memory.
    """
    dtype = cast(NiftiHeader, image.header).get_data_dtype()
    shape = tuple(int(side) for side in image.shape)
    stored = path.stat().st_size
    count = int(np.prod(shape, dtype=object))
    needed = int(cast(Any, image.dataobj).offset) + count * dtype.itemsize
    room = stored * DEFLATE_RATIO if is_gzip(path) else stored
    if count > most or needed > room:
        raise Prod9Error(
            f"{path} declares {' x '.join(map(str, shape))} voxels of {dtype}, more than its "
            f"{stored} bytes can hold or prod9 reads ({most} voxels); it is cut short or "
            "damaged, copy it again."
        )
    # As they are stored (unpacked), and as float32.
    require_memory(count * (dtype.itemsize * is_gzip(path) + 4), str(path))


def require_whole_gzip(path: Path, expected: int | None = None) -> None:
    """Read a ``.gz`` file to its end, which makes gzip compare the checksum; else do nothing.

    nibabel stops at the last voxel, where a flipped bit has passed as another intensity.

    Args:
        path: Of the file.
        expected: Bytes up to the last voxel, unpacked; None where the file is one of prod9's.

    Raises:
        Prod9Error: the file is cut short or damaged, or goes on long behind the last voxel.
    """
    if not is_gzip(path):
        return
    read, most = 0, math.inf if expected is None else expected + _MOST_BEHIND_VOXELS
    try:
        with gzip.open(path) as file:
            while read <= most and (piece := file.read(1 << 20)):
                read += len(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise Prod9Error(f"{path} is a damaged gzip file ({error}); copy it again.") from error
    if read > most:
        raise Prod9Error(
            f"{path} goes on behind the {expected} bytes that its header declares; copy it again."
        )
