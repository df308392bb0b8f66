"""What every reader promises about any file, checked for one input."""

import os
import resource
import sys
import tempfile
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from fuzz_targets import Target

from prod9.errors import Prod9Error

ROOM_BYTES = 1 << 30
"""Of addresses, above what the process has: inputs are some kilobytes."""


def address_space() -> int:
    """Bytes of addresses that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


@contextmanager
def little_memory(room: int = ROOM_BYTES) -> Generator[None]:
    """Let the block allocate ``room`` bytes more, and no byte beyond: a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def broken_promise(target: Target, data: bytes, limited: bool = True) -> str | None:
    """Give an input to a reader; return what it did that it must not, or None.

    Args:
        target: the reader.
        data: the input.
        limited: whether to bound the memory here, else it was bounded before.

    """
    with tempfile.TemporaryDirectory() as name:
        folder, here = Path(name), Path.cwd()
        own = folder / "input"
        own.mkdir()
        path = own / target.file
        path.write_bytes(target.store(data))
        try:
            os.chdir(folder)  # what a pickle or a tag would make, it would make here
            if limited:
                with little_memory():
                    target.read(path)
            else:
                target.read(path)
        except Prod9Error as error:
            if not str(error).strip():
                return "an error without words"
        except Exception as error:
            place = traceback.extract_tb(sys.exc_info()[2])[-1]
            return f"{type(error).__name__}: {str(error)[:200]} ({place.name}, {place.lineno})"
        finally:
            os.chdir(here)
        made = [entry.name for entry in folder.iterdir() if entry != own]
        return f"it wrote {made}" if made else None
