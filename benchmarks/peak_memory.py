"""Peak memory of this process: the high-water mark of its resident set, in MiB."""

import builtins
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

_STATUS = Path("/proc/self/status")


def _status(field: str) -> float | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), None)


def peak() -> float | None:
    """Return the most memory this process has held since it began or since :func:`forget`."""
    if (kept := _status("VmHWM:")) is not None:
        return kept
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 1024


def resident() -> float | None:
    """Return what the process holds now; where only the peak is known (not Linux), that."""
    return now if (now := _status("VmRSS:")) is not None else peak()


def forget() -> bool:
    """Let the high-water mark begin anew; return whether the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


class ImportMemory:
    """Adds up how much the process grows while packages are imported.

    A rival's package weighs some hundred MiB, whatever the work; so do those that prod9 imports.
    A comparison of the work counts neither.
    """

    def __init__(self) -> None:
        self.mib = 0.0
        self._thread: int | None = None

    def __enter__(self) -> "ImportMemory":
        self._import = builtins.__import__
        builtins.__import__ = self._watched
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        builtins.__import__ = self._import

    def _watched(self, *args: Any, **kwargs: Any) -> Any:
        """Import as ever; the outermost of nested imports is measured."""
        if self._thread is not None:
            return self._import(*args, **kwargs)
        self._thread = threading.get_ident()
        before, known = resident(), len(sys.modules)
        try:
            return self._import(*args, **kwargs)
        finally:
            self._thread = None
            after = resident()
            # Without a new module another thread has grown, or nothing has.
            if before is not None and after is not None and len(sys.modules) > known:
                self.mib += max(0.0, after - before)
