"""Messages on stderr; results go to stdout."""

from rich.console import Console

from prod9.runtime.processes import is_main, rank, world_size

_console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def say(text: str) -> None:
    """Print one line to stderr, in the main process only."""
    if is_main():
        _console.print(text)


def warn(text: str) -> None:
    """Print a warning to stderr, in any process."""
    who = f" (process {rank()})" if world_size() > 1 else ""
    _console.print(f"warning{who}: {text}")
