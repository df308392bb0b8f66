"""Arrays from ``.npy`` and ``.npz`` files, which may be damaged; nothing is ever unpickled."""

import math
import zipfile
from io import BufferedIOBase
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from prod9.data.volume_files.stored_volume import reading
from prod9.runtime.memory_limits import require_memory


class ArrayHeader(NamedTuple):
    """What a ``.npy`` header declares."""

    shape: tuple[int, ...]
    dtype: np.dtype


def npz_headers(path: Path) -> dict[str, ArrayHeader]:
    """Return the header of every array in an ``.npz``, by its key, without reading the arrays."""
    headers: dict[str, ArrayHeader] = {}
    with reading(path), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                headers[name.removesuffix(".npy")] = _read_header(file)
    return headers


def read_npz_array(path: Path, key: str) -> np.ndarray:
    """Read one array of an ``.npz``; what is missing, damaged or too large is a Prod9Error."""
    with reading(path), zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
        array = _read_array(file, f"array '{key}' in {path}")
        while file.read(1 << 20):  # to the end, where zipfile compares the checksum
            pass
        return array


def read_npy(path: Path) -> np.ndarray:
    """Read a ``.npy`` file; what is missing, damaged or too large is a Prod9Error."""
    with reading(path), path.open("rb") as file:
        return _read_array(file, str(path))


def _read_header(file: IO[bytes] | BufferedIOBase) -> ArrayHeader:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError("it holds pickled Python objects or empty elements, which are never read")
    return ArrayHeader(shape, dtype)


def _read_array(file: IO[bytes] | BufferedIOBase, what: str) -> np.ndarray:
    header = _read_header(file)
    require_memory(math.prod(header.shape) * header.dtype.itemsize, what)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
