"""Progress bars of an evaluation."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from prod9.runtime.progress import progress_bar

T = TypeVar("T")
_HIDDEN: ContextVar[bool] = ContextVar("hidden", default=False)


@contextmanager
def hidden(yes: bool = True) -> Generator[None]:
    """Show no progress in this block."""
    before = _HIDDEN.set(yes)
    try:
        yield
    finally:
        _HIDDEN.reset(before)


def tracked(items: Sequence[T], what: str, unit: str = "volumes") -> Iterator[T]:
    """Yield ``items`` with a progress bar; only one may be open at a time."""
    if _HIDDEN.get():
        yield from items
        return
    with progress_bar(what, unit) as report:
        for done, item in enumerate(items):
            report(done, len(items))
            yield item
