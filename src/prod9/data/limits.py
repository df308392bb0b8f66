"""How much memory a file may ask for: what its bytes can hold, and what this machine has."""

import os

from prod9.errors import UserError

DEFLATE_RATIO = 1032
"""Deflate (gzip, zip) cannot shrink anything further than this."""


def physical_memory() -> int | None:
    """Return the bytes of memory of this machine; None where it does not tell."""
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
    return pages * size if pages > 0 and size > 0 else None


def require_memory(needed: int, what: str) -> None:
    """Refuse what is larger than the machine, which would end the process without a word.

    Args:
        needed: Bytes.
        what: The file (and array), for the message.

    Raises:
        UserError: the machine has less memory than that.

    """
    there = physical_memory()
    if there is not None and needed > there:
        raise UserError(
            f"{what} needs {needed / 2**30:,.1f} GiB of memory, this machine has "
            f"{there / 2**30:,.1f} GiB; use smaller files or a larger machine."
        )
