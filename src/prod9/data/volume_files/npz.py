"""Arrays from ``.npy`` and ``.npz`` files that may be broken, forged or pickled.

Sizes are compared with the file before memory is allocated, and nothing is ever unpickled.
"""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import IO

import numpy as np

from prod9.errors import Prod9Error
from prod9.runtime.memory_limits import DEFLATE_RATIO, require_memory

MAX_BYTES = 64 << 30
# numpy's own limit, which it checks only after it has read the header.
_MAX_HEADER = 10_000

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
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
    magic = file.read(8)
    if len(magic) < 8 or magic[:6] != b"\x93NUMPY":
        raise ValueError("it does not begin with numpy's mark")
    version = (magic[6], magic[7])
    if version not in ((1, 0), (2, 0)):  # 3.0 only adds Unicode names of structured types
        raise ValueError(f"npy format {version} is not supported")
    width = 2 * version[0]
    length = file.read(width)
    if int.from_bytes(length, "little") > _MAX_HEADER:
        raise ValueError("its header is longer than any header")
    rest = BytesIO(length + file.read(int.from_bytes(length, "little")))
    try:
        read = np.lib.format.read_array_header_1_0
        if version == (2, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(rest)
    # numpy parses it as Python, which fails with many types, some for nesting alone.
    except Exception as error:
        raise ValueError(f"its header cannot be read ({type(error).__name__})") from error
    if any(side < 0 for side in shape):
        raise ValueError(f"the shape {shape} has a negative side")
    if dtype.itemsize == 0:  # numpy makes elements of some bytes of it
        raise ValueError(f"elements of type {dtype!r} have no size")
    return ArrayHeader(tuple(shape), dtype, len(magic) + rest.tell())


def npz_headers(path: Path) -> dict[str, ArrayHeader]:
    """Return the header of every array in an ``.npz``, by its key, without reading the arrays.

    Raises:
        Prod9Error: the file is not a whole npz, an array is pickled, or declares a size that the
            file cannot hold.
    """
    headers: dict[str, ArrayHeader] = {}
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            # Members that share their bytes are how a small file becomes a large bomb.
            if sum(member.compress_size for member in archive.infolist()) > size:
                raise zipfile.BadZipFile("its members overlap")
            for member in archive.infolist():
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise NotImplementedError("its compression is none that numpy writes")
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
                    and stored <= size
                    and declared <= max(stored * DEFLATE_RATIO, stored + 1024)
                    and declared <= MAX_BYTES
                )
                if not honest:
                    raise Prod9Error(
                        f"array '{key}' in {path} declares {header.shape} x {header.dtype}, which "
                        f"does not fit the {stored} bytes stored for it; the file is damaged, "
                        "replace it."
                    )
                headers[key] = header
    except FileNotFoundError:
        raise Prod9Error(f"{path} does not exist; check the path.") from None
    except _BROKEN as error:
        raise _not_whole(path, error) from error
    return headers


def read_npz_array(path: Path, key: str) -> np.ndarray:
    """Read one array of an ``.npz`` whose headers were looked at by :func:`npz_headers`.

    Raises:
        Prod9Error: the array is cut short, damaged, pickled or too large for the memory.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
            require_memory(archive.getinfo(f"{key}.npy").file_size, f"array '{key}' in {path}")
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read()  # to the end, where zipfile compares the checksum
            return array
    except MemoryError:
        raise Prod9Error(f"array '{key}' in {path} does not fit into memory.") from None
    except (*_BROKEN, KeyError) as error:
        raise _not_whole(path, error, f"array '{key}' in ") from error


def read_npy(path: Path) -> np.ndarray:
    """Read a ``.npy`` file.

    Raises:
        Prod9Error: it is not a whole npy, or pickled.
    """
    try:
        with path.open("rb") as file:
            header = read_npy_header(file)
            _refuse_pickle(header, str(path))
            if header.offset + header.nbytes > path.stat().st_size:
                raise Prod9Error(
                    f"{path} is cut short: its header declares {header.shape} x {header.dtype}, "
                    f"its size is {path.stat().st_size} bytes; copy it again."
                )
            require_memory(header.nbytes, str(path))
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise Prod9Error(f"{path} does not exist; check the path.") from None
    except _BROKEN as error:
        raise Prod9Error(f"{path} is not a readable npy file ({error}); write it again.") from error


def _refuse_pickle(header: ArrayHeader, where: str) -> None:
    if header.dtype.hasobject:
        raise Prod9Error(
            f"{where} holds pickled Python objects, which prod9 never loads; save it as a plain "
            "numeric array."
        )


def _not_whole(path: Path, error: Exception, where: str = "") -> Prod9Error:
    return Prod9Error(
        f"{where}{path} is not a whole npz file ({error}); delete it and fetch or write it again."
    )
