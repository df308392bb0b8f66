"""What SimpleITK reads: NRRD and MetaImage files, and single slices of DICOM series."""

import math
import re
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prod9.data.volume_files.stored_volume import StoredVolume, number_of_part, times
from prod9.errors import Prod9Error
from prod9.runtime.memory_limits import require_memory
from prod9.shapes import MAX_VOXELS

_HEAD = 1024
"""Bytes of a DICOM file in which the file's own description (group 0002) ends."""
_SYNTAX = re.compile(rb"1\.2\.840\.10008\.1\.2\.4\.\d+")
_DECODED = ("50", "51", "57", "70", "80", "81", "90", "91")
"""Ends of the compressed transfer syntaxes that SimpleITK decodes: JPEG, JPEG-LS, JPEG 2000."""
_PIECE = 1 << 20


@dataclass(frozen=True)
class Header:
    """What a file declares."""

    path: Path
    shape: tuple[int, ...]
    kind: str
    """Of the pixels, in SimpleITK's words: ``16-bit signed integer``."""
    affine: np.ndarray
    """float64 (4, 4): voxel to mm (RAS+), of the first three axes."""
    reader: Any


def read_itk_file(path: Path, part: str = "") -> StoredVolume:
    """Read a ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd``; ``part`` as in ``read_volume``.

    Axes and affine are those that the same volume has as NIfTI.
    """
    header = read_header(path, "Nrrd" if path.suffix.lower() in (".nrrd", ".nhdr") else "Meta")
    number = number_of_part(header.shape, part, path)
    if extra := len(header.shape) - 3:
        header.reader.SetExtractSize([*header.shape[:3], *[0] * extra])
        header.reader.SetExtractIndex([0, 0, 0, number, *[0] * (extra - 1)])
    require_room(header.shape[:3], header.kind, path)
    _require_whole(path)
    return StoredVolume.of(read_pixels(header), path, header.affine)


def simpleitk(path: Path) -> Any:
    """Import SimpleITK when a file needs it: it is optional, and takes its time."""
    try:
        import SimpleITK
    except ImportError:
        raise Prod9Error(
            f"{path} needs SimpleITK to be read, which is not installed: pip install 'prod9[itk]'."
        ) from None
    sitk: Any = SimpleITK
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def read_header(path: Path, kind: str) -> Header:
    """Read what a file declares; ``kind`` is its format: ``Nrrd``, ``Meta`` or ``GDCM``.

    Raises:
        Prod9Error: missing, damaged, of another format; colour or complex; SimpleITK is missing.
    """
    sitk = simpleitk(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(f"{kind}ImageIO")
    with _reading(path):
        reader.ReadImageInformation()
    shape, pixels = reader.GetSize(), sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if reader.GetNumberOfComponents() != 1 or not pixels[0].isdigit():
        raise Prod9Error(
            f"{path} holds voxels of the type {pixels}; prod9 reads real numbers (one grey value)."
        )
    affine, axes = np.eye(4), min(3, len(shape))
    direction = np.array(reader.GetDirection()).reshape(len(shape), len(shape))
    affine[:axes, :axes] = (direction * reader.GetSpacing())[:axes, :axes]
    affine[:axes, 3] = reader.GetOrigin()[:axes]
    if not np.isfinite(affine).all():
        raise Prod9Error(f"{path} has NaN or infinite numbers in its geometry; repair its header.")
    # SimpleITK's first two axes lead to the left and to the back, nibabel's to the right and front.
    return Header(path, tuple(shape), pixels, np.diag([-1.0, -1, 1, 1]) @ affine, reader)


def read_pixels(header: Header) -> np.ndarray:
    """Return the voxels, axes in the order of the affine's columns."""
    sitk = simpleitk(header.path)
    with _reading(header.path):
        return sitk.GetArrayFromImage(header.reader.Execute()).T


def require_room(shape: Sequence[int], kind: str, path: Path) -> None:
    """Refuse a volume with too many voxels, or for which there is not the memory."""
    count = math.prod(shape)
    if count > MAX_VOXELS:
        raise Prod9Error(
            f"{path} declares {times(shape)} voxels, more than prod9 reads ({MAX_VOXELS}); it is "
            "damaged, or has to be cut into pieces."
        )
    stored = int(kind.partition("-")[0]) // 8
    require_memory(count * (2 * stored + 4), str(path))  # SimpleITK's, as stored, and as float32


def _require_whole(path: Path) -> None:
    """Compare the checksum of compressed voxels, which SimpleITK does not look at."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while (line := file.readline(_PIECE)).strip():
            key, _, value = line.decode("latin-1").replace(":", "=", 1).partition("=")
            fields[key.strip().lower()] = value.strip()
            if key.strip().lower() == "elementdatafile":
                break
        start = file.tell()
    name = fields.get("elementdatafile") or fields.get("data file") or fields.get("datafile", "")
    packed = fields.get("encoding", "") in ("gzip", "gz") or (
        fields.get("compresseddata", "").lower() == "true"
    )
    data = path if name in ("", "LOCAL") else path.parent / name
    if not packed or not data.is_file() or {"byte skip", "byteskip", "line skip"} & {*fields}:
        return  # lists of files and skipped bytes are left to SimpleITK
    unpacked = zlib.decompressobj(wbits=47)  # zlib or gzip
    with data.open("rb") as file:
        file.seek(start if data == path else 0)
        try:
            while not unpacked.eof and (piece := file.read(_PIECE)):
                while piece and not unpacked.eof:
                    unpacked.decompress(piece, _PIECE)
                    piece = unpacked.unconsumed_tail
            unpacked.flush()
        except zlib.error as error:
            raise _damaged(path) from error
    if not unpacked.eof:
        raise _damaged(path)


@contextmanager
def _reading(path: Path) -> Generator[None]:
    """Turn SimpleITK's messages, which have several lines, into one sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> Prod9Error:
    head = head_of(path) if path.is_file() else b""
    syntax = _SYNTAX.search(head) if head[128:132] == b"DICM" else None
    if syntax and not syntax[0].endswith(tuple(f".4.{end}".encode() for end in _DECODED)):
        return Prod9Error(
            f"{path} is compressed in a way that SimpleITK does not decode (transfer syntax "
            f"{syntax[0].decode()}); decompress it first, for instance with gdcmconv --raw."
        )
    return Prod9Error(
        f"{path} cannot be read: it is damaged, cut short or no such file, or the file with its "
        "voxels is missing; fetch or write it again."
    )


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file, where a DICOM file says what it is."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise Prod9Error(f"{path} cannot be read ({error}); make it readable.") from error


def tag_of(reader: Any, key: str) -> str:
    """Return a DICOM element as text, without the padding; empty where there is none."""
    return reader.GetMetaData(key).strip(" \0") if reader.HasMetaDataKey(key) else ""
