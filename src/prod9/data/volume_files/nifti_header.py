"""NIfTI files, opened without trust: what a header claims is judged before nibabel believes it.

nibabel reads as much as a forged extension asks for, and chooses a reader by what the bytes look
like, one of them an XML parser. Here it is only ever given a NIfTI-1 or NIfTI-2 volume.
"""

import gzip
import struct
import zlib
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, TypeAlias, cast

from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from nibabel.spatialimages import HeaderDataError, ImageDataError
from nibabel.wrapstruct import WrapStructError

from prod9.errors import Prod9Error

NiftiImage: TypeAlias = Nifti1Image | Nifti2Image

BROKEN = (
    ImageFileError,
    HeaderDataError,
    ImageDataError,
    WrapStructError,
    OSError,
    EOFError,
    ValueError,
    ArithmeticError,
    zlib.error,
    struct.error,
)
"""What nibabel and gzip raise for files that are no whole NIfTI."""

# Extensions lie between header and voxels: patients' DICOM headers, kilobytes.
_MOST_BEFORE_VOXELS = 16 << 20
# sizeof_hdr -> class of image.
_KINDS: dict[int, Any] = {348: Nifti1Image, 540: Nifti2Image}
# Behind the header, four bytes say whether extensions follow.
_FLAG_BYTES = 4


def is_gzip(path: Path) -> bool:
    """Whether a file is packed, by its name."""
    return path.name.lower().endswith(".gz")


def open_nifti(path: Path) -> NiftiImage:
    """Read the header of a ``.nii`` or ``.nii.gz``, without its voxels.

    At most 16 MiB are read, whatever the header says.

    Raises:
        Prod9Error: the file is missing, or has no header that prod9 can read.
    """
    if not path.is_file():
        raise Prod9Error(f"{path} does not exist; check the path.")
    try:
        with gzip.open(path) if is_gzip(path) else path.open("rb") as file:
            kind = _judge(file)
        return cast(NiftiImage, kind.from_filename(path))
    except BROKEN as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> Prod9Error:
    """Return the error for a file that is no whole NIfTI."""
    return Prod9Error(f"{path} is not a readable NIfTI file ({error}); copy it again.")


def _judge(file: BufferedIOBase) -> Any:
    """Return the class of image that a file holds.

    Raises:
        ValueError: it is no NIfTI, or what lies before its voxels is not believable.
    """
    head = file.read(max(_KINDS) + _FLAG_BYTES)
    for size in {int.from_bytes(head[:4], order) for order in ("little", "big")} & set(_KINDS):
        # Not from the bytes: nibabel tells their order by another field than the first.
        header = _KINDS[size].header_class.from_fileobj(BytesIO(head[:size]), check=False)
        begin = header["vox_offset"].item()
        if not 0 <= begin <= _MOST_BEFORE_VOXELS:
            raise ValueError(f"its voxels are said to begin at byte {begin:.16g}")
        content = head + file.read(max(0, int(begin) - len(head)))
        _judge_extensions(content, header.endianness, size, int(begin))
        return _KINDS[size]
    raise ValueError("it does not begin with a NIfTI header")


def _judge_extensions(content: bytes, order: str, start: int, end: int) -> None:
    """Refuse extensions of no length, or longer than what is there: nibabel would read on."""
    if content[start : start + 1] in (b"", b"\0"):
        return
    start += _FLAG_BYTES
    if end < start:  # a negative length, which nibabel takes for all that there is
        raise ValueError(f"it has an extension of {end - start} bytes")
    while end - start >= 16 and len(content) - start >= 8:
        (length,) = struct.unpack_from(f"{order}i", content, start)
        if not 8 <= length <= len(content) - start:
            raise ValueError(f"it has an extension of {length} bytes")
        start += length
