"""Signals that ask a command to stop: Ctrl-C, SIGTERM, a scheduler's warning."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from prod9.runtime.processes import is_main, world_size

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
"""SLURM sends SIGUSR1 as its warning before the time limit, where a job asks for it."""


class Stopped(BaseException):
    """A signal ended the work; not KeyboardInterrupt, which Typer and Lightning handle themselves.

    Args:
        signum: the signal.
        saved: a sentence on what was saved, and where; empty where nothing was.
    """

    def __init__(self, signum: int, saved: str = "") -> None:
        super().__init__(saved)
        self.signum, self.saved = signum, saved

    @property
    def exit_code(self) -> int:
        """130 for SIGINT, else 143: SIGUSR1 announces a SIGTERM."""
        return 128 + (signal.SIGINT if self.signum == signal.SIGINT else signal.SIGTERM)


def stop_now(signum: int, frame: FrameType | None) -> None:
    """Signal handler for work that may be interrupted anywhere.

    Raises:
        Stopped: always.
    """
    raise Stopped(signum)


class StopSignals:
    """Note a signal instead of ending the process; a second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self.received = 0

    @contextmanager
    def listening(self) -> Generator[None]:
        """Note signals within the block; Python allows this in the main thread only."""
        previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            previous = {number: signal.signal(number, self._note) for number in STOPPING}
        try:
            yield
        finally:
            self.received = 0
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.received and signum == signal.SIGINT:
            raise Stopped(signum)
        self.received = self.received or signum
        if is_main():  # os.write, because the signal may have come within a print
            name = signal.Signals(signum).name
            os.write(2, f"\n{name}: saving after this step; Ctrl-C stops at once\n".encode())

    def agreed(self) -> int:
        """Return the signal that any process has received, 0 for none; all processes must call."""
        if world_size() == 1:
            return self.received
        import torch

        from prod9.runtime.distributed import total

        own = torch.tensor([float(self.received == number) for number in STOPPING])
        found = total(own).tolist()
        return next((n for n, count in zip(STOPPING, found, strict=True) if count), 0)


def requeue() -> bool:
    """Put this SLURM job back into the queue; return whether it is there."""
    job, command = os.environ.get("SLURM_JOB_ID"), shutil.which("scontrol")
    if not job or command is None:
        return False
    if not is_main():
        return True
    return subprocess.run([command, "requeue", job], check=False).returncode == 0
