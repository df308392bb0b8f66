"""How far a long piece of work is, how fast it goes, and when it will be done."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from prod9.runtime.console import say
from prod9.runtime.distributed import is_main, world_size

QUIET_SECONDS = 30.0
"""Without a terminal, a line is printed no more often than this."""


@contextmanager
def pace(what: str, unit: str = "volumes") -> Generator[Callable[[float, float], None]]:
    """Give a function that is told (done, of how many): a live bar on a terminal, else lines.

    The first call starts the clock: what was done before it is not counted as speed. In a
    distributed run the main process alone speaks, of its own share.
    """
    if not is_main():
        yield lambda done, total: None
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    share = "" if world_size() == 1 else f" (this process's share of {world_size()})"
    clock: list[tuple[float, float]] = []
    said = time.monotonic()

    def line(done: float, total: float) -> str:
        began, first = clock[0]
        speed = (done - first) / max(time.monotonic() - began, 1e-9)
        if not speed:
            return f"{done:.0f} of {total:.0f} {unit}"
        pace = f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s each"
        return f"{done:.0f} of {total:.0f} {unit}, {pace}, {duration((total - done) / speed)} left"

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[line]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=None, line="")

        def tell(done: float, total: float) -> None:
            nonlocal said
            clock[:] = clock or [(time.monotonic(), done)]
            bar.update(task, completed=done, total=total, line=line(done, total))
            if bar.disable and time.monotonic() - said > QUIET_SECONDS:
                said = time.monotonic()
                say(f"{what}{share}: {line(done, total)}")

        yield tell


def duration(seconds: float) -> str:
    """Return a duration as text: ``1.5 min``, or ``2 h 05 min`` from an hour on."""
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"
