"""Progress of long work: how much is done, how fast, and the time left."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from prod9.runtime.processes import is_main, world_size

_LINE_SECONDS, _LIVE_SECONDS = 30.0, 0.5
"""At most one line is printed in this time without a terminal; with one, at most one update."""


class ProgressLine:
    """A live bar on a terminal, else a line on stderr every 30 s."""

    def __init__(self, what: str, unit: str) -> None:
        self.what, self.unit = what, unit
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[line]}"),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self.task = self.bar.add_task(what, total=None, line="")
        self.start(0)

    def start(self, done: float) -> None:
        """Start the clock: what is ``done`` before it does not count as speed."""
        self.first, self.began = done, time.monotonic()
        self.shown = self.began
        self.bar.start()

    def stop(self) -> None:
        """Take the bar away; without a terminal there is none, and nothing is printed."""
        if self.live:  # rich before 14.3 prints an empty line for a bar that is disabled
            self.bar.stop()

    def due(self) -> bool:
        """Whether it is time for the next line."""
        return time.monotonic() - self.shown >= (_LIVE_SECONDS if self.live else _LINE_SECONDS)

    def show(self, done: float, total: float, more: str = "") -> None:
        """Show how much is done, the rate, the time left, and ``more``."""
        self.shown = time.monotonic()
        line = f"{done:.0f} of {total:.0f} {self.unit}"
        speed = (done - self.first) / max(self.shown - self.began, 1e-9)
        if speed:
            rate = f"{speed:.1f} {self.unit}/s" if speed >= 1 else f"{1 / speed:.1f} s each"
            line = f"{line}, {rate}, {duration((total - done) / speed)} left"
        line += more
        self.bar.update(self.task, completed=done, total=total, line=line)
        if not self.live:
            self.console.print(f"{self.what}: {line}")


@contextmanager
def progress_bar(what: str, unit: str = "volumes") -> Generator[Callable[[float, float], None]]:
    """Give a function that is called with (done, total); the clock starts at its first call.

    In a distributed run only the main process prints, about its own share.
    """
    if not is_main():
        yield lambda done, total: None
        return
    share = "" if world_size() == 1 else f" (this process's share of {world_size()})"
    progress = ProgressLine(f"{what}{share}", unit)
    called = False

    def report(done: float, total: float) -> None:
        nonlocal called
        if not called:
            called = True
            progress.start(done)
        if progress.due():
            progress.show(done, total)

    try:
        yield report
    finally:
        progress.stop()


def duration(seconds: float) -> str:
    """Return a duration as text: ``1.5 min``, or ``2 h 05 min`` from an hour on."""
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"
