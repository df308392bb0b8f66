"""Lines for the person at the terminal; results go to stdout, talk goes to stderr."""

from rich.console import Console

_console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def say(text: str) -> None:
    """Print one line to stderr."""
    _console.print(text)
