"""Progress of long work: how much is done, how fast, and the time left."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from prod9.runtime.console import say
from prod9.runtime.processes import is_main, world_size

_LINE_SECONDS = 30.0
"""Without a terminal, a line is printed no more often than this."""


def bar_on(console: Console, *, transient: bool = False) -> Progress:
    """Return a progress bar whose tasks have a field ``line``; invisible without a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[line]}"),
        console=console,
        transient=transient,
        disable=not console.is_terminal,
    )


@contextmanager
def progress_bar(what: str, unit: str = "volumes") -> Generator[Callable[[float, float], None]]:
    """Give a function that is called with (done, total): a live bar on a terminal, else lines.

    The clock starts at the first call, so that work done earlier does not count as speed. In a
    distributed run only the main process prints, about its own share.
    """
    if not is_main():
        yield lambda done, total: None
        return
    share = "" if world_size() == 1 else f" (this process's share of {world_size()})"
    clock: list[tuple[float, float]] = []
    printed = time.monotonic()

    def line(done: float, total: float) -> str:
        began, first = clock[0]
        speed = (done - first) / max(time.monotonic() - began, 1e-9)
        if not speed:
            return f"{done:.0f} of {total:.0f} {unit}"
        rate = f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s each"
        return f"{done:.0f} of {total:.0f} {unit}, {rate}, {duration((total - done) / speed)} left"

    with bar_on(Console(stderr=True, highlight=False, soft_wrap=True), transient=True) as bar:
        task = bar.add_task(what, total=None, line="")

        def report(done: float, total: float) -> None:
            nonlocal printed
            clock[:] = clock or [(time.monotonic(), done)]
            bar.update(task, completed=done, total=total, line=line(done, total))
            if bar.disable and time.monotonic() - printed > _LINE_SECONDS:
                printed = time.monotonic()
                say(f"{what}{share}: {line(done, total)}")

        yield report


def duration(seconds: float) -> str:
    """Return a duration as text: ``1.5 min``, or ``2 h 05 min`` from an hour on."""
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"
