"""Writing ``.pt`` files whole, and reading them without unpickling code."""

import io
from pathlib import Path
from typing import Any

import torch

from prod9.errors import UserError
from prod9.files import atomic_write


def write_plain(path: Path, content: object) -> None:
    """Write tensors and plain data, whole or not at all.

    Raises:
        UserError: the file cannot be written, as on a full disk; an older one stays as it was.

    """
    # Into memory first: torch's own writer reports a full disk as a RuntimeError without a cause.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_plain(path: Path, remedy: str) -> object:
    """Read a ``.pt`` or ``.ckpt`` file of plain data and tensors.

    Raises:
        UserError: torn, or holding more than plain data; ends in ``remedy``.

    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # torch.load fails with many types, depending on where a file is torn.
    except Exception as error:
        raise UserError(
            f"{path} cannot be read: it is torn, or holds more than plain data "
            f"({type(error).__name__}); {remedy}."
        ) from error


def read_export(path: Path, *, kind: str, made_by: str) -> dict[str, Any]:
    """Read one of prod9's exports, whose ``kind`` is as named.

    Raises:
        UserError: missing, torn, or of another kind; names the command that makes one.

    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; make it with `{made_by}`, or correct the path.")
    content = read_plain(path, f"make it again with `{made_by}`")
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise UserError(f"{path} is not a file of kind {kind}; make one with `{made_by}`.")
    return content
