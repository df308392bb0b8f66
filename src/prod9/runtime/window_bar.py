"""A progress bar of windows."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.progress import Progress


@contextmanager
def window_bar(what: str) -> Generator[Callable[[int, int], None]]:
    """Show a progress bar for as long as the block runs; it is told (windows done, in all)."""
    with Progress(transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
