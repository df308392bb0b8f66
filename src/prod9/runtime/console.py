"""Lines for the person at the terminal; results go to stdout, talk goes to stderr."""

from rich.console import Console

from prod9.runtime.distributed import is_main, rank, world_size

_console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def say(text: str) -> None:
    """Print one line to stderr; of several processes, only the main one does."""
    if is_main():
        _console.print(text)


def warn(text: str) -> None:
    """Print a warning to stderr, whichever process it is that has found something."""
    who = f" (process {rank()})" if world_size() > 1 else ""
    _console.print(f"warning{who}: {text}")
