"""How much memory a file may ask for: what its bytes can hold, and what this machine has."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from prod9.errors import Prod9Error

_PROC, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
DEFLATE_RATIO = 1032
"""Deflate (gzip, zip) cannot shrink anything further than this."""


def physical_memory() -> int | None:
    """Return the bytes of memory of this machine; None where it does not tell."""
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
    return pages * size if pages > 0 and size > 0 else None


def available_memory() -> int | None:
    """Bytes that this process may have at most: of machine, container or job, and ``ulimit -v``."""
    found = [*_group_limits(_PROC, _GROUPS)]
    if (machine := physical_memory()) is not None:
        found.append(machine)
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            found.append(soft)
    except ImportError:  # Windows
        pass
    return min(found, default=None)


def _group_limits(proc: Path, groups: Path) -> Iterator[int]:
    """Yield the limits of this process's control group and of all that it lies in.

    Args:
        proc: ``/proc/self/cgroup``: lines ``number:controllers:/path``; version 2 names none.
        groups: Where the groups are mounted; a container may see its own as the root.
    """
    try:
        lines = proc.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    places = {(groups, "memory.max"), (groups / "memory", "memory.limit_in_bytes")}
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        inside = PurePosixPath(path.lstrip("/"))
        if ".." in inside.parts:  # seen from within another namespace
            continue
        for part in (inside, *inside.parents):
            if "memory" in controllers.split(","):
                places.add((groups / "memory" / part, "memory.limit_in_bytes"))
            elif not controllers:
                places.add((groups / part, "memory.max"))
    for folder, name in places:
        try:
            yield int((folder / name).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue


def require_memory(needed: int, what: str) -> None:
    """Refuse what is larger than the memory, which would end the process without a word.

    Args:
        needed: Bytes.
        what: The file (and array), for the message.

    Raises:
        Prod9Error: the machine, container or job has less memory than that.
    """
    there = available_memory()
    if there is not None and needed > there:
        raise Prod9Error(
            f"{what} needs {needed / 2**30:,.1f} GiB of memory, this machine has "
            f"{there / 2**30:,.1f} GiB; use smaller files or a larger machine."
        )
