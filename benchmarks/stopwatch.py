"""How long a piece of work takes."""

import statistics
import time
from collections.abc import Callable


def median_seconds(work: Callable[[], object], repeats: int, warm_up: int = 1) -> float:
    """Return the median of several runs, after ``warm_up`` that do not count."""
    for _ in range(warm_up):
        work()
    seconds: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
