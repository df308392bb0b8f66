"""How much memory there is: of the machine, of the container or job, and by ``ulimit -v``."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from prod9.errors import Prod9Error

_PROC, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def physical_memory() -> int | None:
    """Return the bytes of memory of this machine; None where it does not tell."""
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def available_memory() -> int | None:
    """Return the bytes that this process may have at most; None where nothing tells."""
    found = [*_group_limits()]
    if (machine := physical_memory()) is not None:
        found.append(machine)
    with suppress(ImportError):  # Windows
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            found.append(soft)
    return min(found, default=None)


def _group_limits() -> Iterator[int]:
    """Yield the limits of this process's control group (version 2) and of all that it lies in."""
    own = PurePosixPath()
    with suppress(OSError):
        line = _PROC.read_text(errors="replace").partition("0::/")[2]
        own = PurePosixPath(line.partition("\n")[0])
    for group in (own, *own.parents):  # a container may see its own group as the root
        with suppress(OSError, ValueError):  # no such file, or "max"
            yield int((_GROUPS / group / "memory.max").read_text())


def require_memory(needed: int, what: str) -> None:
    """Refuse ``what`` (a file) that needs more bytes than there are: the system would end prod9.

    Raises:
        Prod9Error: the machine, container or job has less memory than that.
    """
    there = available_memory()
    if there is not None and needed > there:
        raise Prod9Error(
            f"{what} needs {needed / 2**30:,.1f} GiB of memory, this machine has "
            f"{there / 2**30:,.1f} GiB; use smaller files or a larger machine."
        )
