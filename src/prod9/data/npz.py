"""Arrays from ``.npy`` and ``.npz`` files that may be broken, forged or pickled.

Sizes are compared with the file before memory is allocated, and nothing is ever unpickled.
"""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO

import numpy as np

from prod9.errors import UserError

MAX_BYTES = 64 << 30
# Deflate cannot shrink anything further than this.
_MAX_RATIO = 1032

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    struct.error,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # an encrypted member
)


@dataclass(frozen=True)
class ArrayHeader:
    """What a ``.npy`` header declares."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    """Bytes before the first element."""

    @property
    def nbytes(self) -> int:
        """Bytes of the elements; exact for any forged shape, which numpy's own int64 is not."""
        count = 1
        for side in self.shape:
            count *= side
        return count * self.dtype.itemsize


def read_npy_header(file: IO[bytes] | BufferedIOBase) -> ArrayHeader:
    """Read the header of an open ``.npy`` file.

    Raises:
        ValueError: it is no such header.

    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:  # 3.0 only adds Unicode names of structured types
        raise ValueError(f"npy format {version} is not supported")
    if any(side < 0 for side in shape):
        raise ValueError(f"the shape {shape} has a negative side")
    return ArrayHeader(tuple(shape), dtype, file.tell())


def npz_headers(path: Path) -> dict[str, ArrayHeader]:
    """Return the header of every array in an ``.npz``, by its key, without reading the arrays.

    Raises:
        UserError: the file is not a whole npz, an array is pickled, or declares a size that the
            file cannot hold.

    """
    headers: dict[str, ArrayHeader] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    continue
                key = member.filename.removesuffix(".npy")
                with archive.open(member) as file:
                    header = read_npy_header(file)
                _refuse_pickle(header, f"array '{key}' in {path}")
                declared = header.offset + header.nbytes
                stored = member.compress_size
                honest = (
                    declared == member.file_size
                    and stored <= path.stat().st_size
                    and declared <= max(stored * _MAX_RATIO, stored + 1024)
                    and declared <= MAX_BYTES
                )
                if not honest:
                    raise UserError(
                        f"array '{key}' in {path} declares {header.shape} x {header.dtype}, which "
                        f"does not fit the {stored} bytes stored for it; the file is damaged, "
                        "replace it."
                    )
                headers[key] = header
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path.") from None
    except _BROKEN as error:
        raise _not_whole(path, error) from error
    return headers


def read_npz_array(path: Path, key: str) -> np.ndarray:
    """Read one array of an ``.npz`` whose headers were looked at by :func:`npz_headers`.

    Raises:
        UserError: the array is cut short, damaged, pickled or too large for the memory.

    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read()  # to the end, where zipfile compares the checksum
            return array
    except MemoryError:
        raise UserError(f"array '{key}' in {path} does not fit into memory.") from None
    except (*_BROKEN, KeyError) as error:
        raise _not_whole(path, error, f"array '{key}' in ") from error


def read_npy(path: Path) -> np.ndarray:
    """Read a ``.npy`` file.

    Raises:
        UserError: it is not a whole npy, or pickled.

    """
    try:
        with path.open("rb") as file:
            header = read_npy_header(file)
            _refuse_pickle(header, str(path))
            if header.offset + header.nbytes > path.stat().st_size:
                raise UserError(
                    f"{path} is cut short: its header declares {header.shape} x {header.dtype}, "
                    f"its size is {path.stat().st_size} bytes; copy it again."
                )
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path.") from None
    except _BROKEN as error:
        raise UserError(f"{path} is not a readable npy file ({error}); write it again.") from error


def _refuse_pickle(header: ArrayHeader, where: str) -> None:
    if header.dtype.hasobject:
        raise UserError(
            f"{where} holds pickled Python objects, which prod9 never loads; save it as a plain "
            "numeric array."
        )


def _not_whole(path: Path, error: Exception, where: str = "") -> UserError:
    return UserError(
        f"{where}{path} is not a whole npz file ({error}); delete it and fetch or write it again."
    )
