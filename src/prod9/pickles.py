"""What a ``.pt`` file would make PyTorch do, found out without doing it.

``torch.load(weights_only=True)`` runs no code of a file's, but does much that it is asked to: it
unpacks what is packed, and makes ``bytearray(10**12)`` or a storage of any length. prod9's files
need little of that; all else is refused here, before PyTorch sees it.
"""

import os
import pickletools
import re
import struct
import zipfile
from collections.abc import Generator
from typing import Any, BinaryIO, NamedTuple, cast

_ITEM_BYTES = {
    **dict.fromkeys(("BoolStorage", "ByteStorage", "CharStorage", "UntypedStorage"), 1),
    **dict.fromkeys(("BFloat16Storage", "HalfStorage", "ShortStorage"), 2),
    **dict.fromkeys(("FloatStorage", "IntStorage"), 4),
    **dict.fromkeys(("ComplexFloatStorage", "DoubleStorage", "LongStorage"), 8),
    "ComplexDoubleStorage": 16,
}
_PLAIN = {
    "collections OrderedDict",
    "torch Size",
    "torch device",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
    "__builtin__ set",
}
_DTYPE = re.compile(r"torch (b?float|int|uint|complex)[0-9]{1,3}|torch bool")
_PUSH = {
    "BININT",
    "BININT1",
    "BININT2",
    "BINUNICODE",
    "LONG1",
}
_END, _LOCATOR, _END64 = 22, 20, 56
"""Bytes of what an archive ends with, the last first; the longer one where offsets need 64 bits."""
_PUT, _GET = {"BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}


class _Storage(NamedTuple):
    """The name of a type of storage, as the pickle's machine has it on its stack."""

    kind: str


class _Mark:
    """Where a tuple begins."""


class _Unknown:
    """What the machine has on its stack and nobody here knows."""


def require_plain(file: BinaryIO) -> None:
    """Look at a ``.pt`` file as ``torch.save`` writes it; nothing is unpickled.

    Give PyTorch the same open file afterwards: under the path there may be another one by then.

    Args:
        file: Open for reading; left at its beginning.

    Raises:
        ValueError: it holds more than tensors and plain data, or claims other sizes than it has.
        OSError, zipfile.BadZipFile, and what :mod:`zipfile` raises for damage.
    """
    size = file.seek(0, os.SEEK_END)
    _require_one_reading(file, size)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        root = members[0].filename.partition("/")[0] if members else ""
        for member in members:
            # Python and PyTorch differ in what they make of other names. (The folder has the
            # file's first name, in any language.)
            folder, _, rest = member.filename.partition("/")
            if member.orig_filename != member.filename or folder != root or not rest.isascii():
                raise ValueError("a part of it has a name that torch.save does not give")
            if member.compress_type != zipfile.ZIP_STORED or (
                member.file_size != member.compress_size
            ):
                raise ValueError("a part of it is packed")
        # PyTorch finds members in any case of letters.
        sizes = {member.filename.lower(): member.file_size for member in members}
        if len(sizes) != len(members):
            raise ValueError("two of its parts have one name")
        if sum(sizes.values()) > size:
            raise ValueError("its parts overlap")
        content = [m for m in members if m.filename.lower() == f"{root}/data.pkl".lower()]
        if not content:
            raise ValueError("it has no content")
        for kind, key, count in _storages(archive.read(content[0])):
            if sizes.get(f"{root}/data/{key}".lower()) != count * _ITEM_BYTES[kind]:
                raise ValueError(f"a tensor of it claims {count} elements that are not there")
    file.seek(0)


def _require_one_reading(file: BinaryIO, size: int) -> None:
    """Refuse an archive in which PyTorch may see other parts than Python.

    Python allows for bytes before and behind an archive; PyTorch takes the file for a bare pickle
    where it does not begin with a part, and believes the offsets that are written at its end.

    Raises:
        ValueError: it is not from its first to its last byte what ``torch.save`` writes.
    """
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        raise ValueError("it does not begin as an archive")
    file.seek(max(0, size - _END64 - _LOCATOR - _END))
    tail = file.read()
    mark, length, start, comment = struct.unpack("<4s8xLLH", tail[-_END:])
    if mark != b"PK\5\6" or comment:
        raise ValueError("it does not end as an archive")
    end = size - _END
    locator = tail[-_END - _LOCATOR : -_END]
    if locator[:4] == b"PK\6\7":
        end -= _LOCATOR + _END64
        mark, length, start = struct.unpack("<4s36xQQ", tail[:_END64])
        if mark != b"PK\6\6" or struct.unpack("<8xQ4x", locator) != (end,):
            raise ValueError("it has two ends")
    if start + length != end:
        raise ValueError("its list of parts is not where it is said to be")


def _storages(code: bytes) -> Generator[tuple[str, str, int]]:
    """Yield type, name and number of elements of every storage that a pickle asks for.

    The pickle's own machine is followed as far as it must be: what is pushed after the last mark,
    and what is kept of that. A storage may be asked for in the one way in which ``torch.save``
    writes it, and its type may be used for nothing else.

    Raises:
        ValueError: the pickle does anything that plain data and tensors do not need.
    """
    kept: dict[int, object] = {}
    top: list[object] = []  # the newest entries of the stack, as far as they are known
    for operation, argument, _ in pickletools.genops(code):
        name = operation.name
        if name in _PUT:
            kept[cast(int, argument)] = top[-1] if top else _Unknown
        elif name in _PUSH:
            top.append(argument)
        elif name in _GET:
            top.append(kept.get(cast(int, argument), _Unknown))
        elif name == "GLOBAL":
            top.append(_named(cast(str, argument)))
        elif name == "TUPLE" and top[:1] == [_Mark] and _Unknown not in top:
            top = [tuple(top[1:])]
        elif name == "BINPERSID":
            yield _asked_for(top[-1] if top else None)
            top = []
        elif any(map(_has_storage, top)):
            raise ValueError("a type of storage is used for something else")
        else:
            top = [_Mark] if name == "MARK" else []


def _named(name: str) -> object:
    """Return what a global name puts on the stack.

    Raises:
        ValueError: nothing that plain data needs.
    """
    module, _, attribute = name.partition(" ")
    if module in ("torch", "torch.storage") and attribute in _ITEM_BYTES:
        return _Storage(attribute)
    if name in _PLAIN or _DTYPE.fullmatch(name):
        return _Unknown
    raise ValueError(f"it names {name.replace(' ', '.')[:80]}")


def _has_storage(entry: object) -> bool:
    if isinstance(entry, _Storage):
        return True
    return type(entry) is tuple and any(map(_has_storage, cast("tuple[Any, ...]", entry)))


def _asked_for(entry: object) -> tuple[str, str, int]:
    """Return type, name and number of elements of a storage.

    Raises:
        ValueError: it is not asked for as ``torch.save`` writes it.
    """
    match entry:
        case ("storage", _Storage(kind), str(key), str(), int(count)) if count >= 0:
            return kind, key, count
        case _:
            raise ValueError("it asks for a storage in an unknown way")
