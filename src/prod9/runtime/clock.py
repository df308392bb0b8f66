"""Which part of a long command took how long."""

import time

from prod9.runtime.console import say


class Clock:
    """Seconds of each part of a long command."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End the part ``name`` and say how long it took."""
        now = time.monotonic()
        self.seconds[name] = round(now - self.last, 1)
        self.seconds["total"] = round(now - self.start, 1)
        self.last = now
        say(f"[{self.seconds['total'] / 60:.1f} min] {name}: {self.seconds[name]:.0f} s")
