"""Which part of a long command took how long."""

import time
from collections.abc import Mapping, Sequence

from prod9.runtime.console import say


class Clock:
    """Seconds of each part of a long command; a part that comes again adds to itself.

    Args:
        quiet: do not say how long a part took.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.start = self.last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End the part ``name`` and say how long it took."""
        now = time.monotonic()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self.last, 1)
        self.seconds["total"] = round(now - self.start, 1)
        self.last = now
        if not self.quiet:
            say(f"[{self.seconds['total'] / 60:.1f} min] {name}: {self.seconds[name]:.0f} s")


def shares(seconds: Mapping[str, float], groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the share of each group of parts in ``seconds["total"]``, and of the ``rest``."""
    total = max(seconds["total"], 1e-9)
    found = {
        group: sum(seconds.get(part, 0.0) for part in parts) / total
        for group, parts in groups.items()
    }
    return found | {"rest": max(0.0, 1 - sum(found.values()))}
