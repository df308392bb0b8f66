"""Arrays that outlive a process, each with its digest, so that a flipped bit is seen."""

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from prod9.data.volume_files.npz import read_npy
from prod9.errors import Prod9Error
from prod9.files import atomic_write, hexdigest
from prod9.runtime.console import warn

FORMAT = 1
"""Raised when files are sealed in another way; to be part of their names."""
_DIGEST_BYTES = 32
"""Of SHA-256, behind the array: numpy, which stops there, reads the file too."""


def write_sealed(path: Path, array: np.ndarray) -> None:
    """Write an array, whole or not at all.

    Raises:
        Prod9Error: the folder cannot be made or written, or the disk is full.
    """
    with atomic_write(path) as temporary:
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        digest = bytes.fromhex(hexdigest(temporary, "sha256"))
        with temporary.open("ab") as file:
            file.write(digest)


def read_sealed(path: Path) -> np.ndarray | None:
    """Return what :func:`write_sealed` wrote; None where it is to be made, for the first time or
    again: a damaged file is named to the user.
    """
    try:
        content = path.read_bytes()
    except OSError:  # not there, or not to be had
        return None
    if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() == content[-_DIGEST_BYTES:]:
        with suppress(Prod9Error):
            return read_npy(path)
    warn(f"{path} is damaged; what it held is made again")
    return None
