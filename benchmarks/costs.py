"""What one piece of work costs in a process of its own, and how that grows with the size."""

import ctypes
import gc
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import peak_memory
from benchmarks.contender import Contender, Work
from benchmarks.worker import Worker
from prod9.errors import Prod9Error

Points = list[tuple[float, float]]
"""(size, cost), rising in size."""


@dataclass(frozen=True)
class Cost:
    """Of one repeat."""

    seconds: float
    """The repeats' median."""
    memory_mib: float
    """Peak over what the process held before the setup: network, arrays and work."""
    working_mib: float
    """Peak over what it held after the setup: the work alone, its result included."""


def alone(
    setup: Callable[..., Work], *, repeats: int = 1, warmup: int = 0, **arguments: Any
) -> Cost:
    """Set up and run in a new process; ``arguments`` are those of ``setup``.

    Without warm-up, what a first pass prepares counts as well.

    Raises:
        Prod9Error: the work failed, or the system does not tell how much memory a process holds.

    """
    label = f"{setup.__name__} {arguments}"
    with Worker(label, torch.get_num_threads()) as worker:
        worker.set_up(Contender(label, setup, arguments))
        ready = worker.call("benchmarks.costs:begin")
        for _ in range(warmup):
            worker.warm_up()
        seconds = [worker.repeat() for _ in range(repeats)]
        memory = worker.memory()
    if ready is None or memory.total is None or memory.own is None:
        raise Prod9Error("this system does not tell how much memory a process holds.")
    return Cost(statistics.median(seconds), memory.own, memory.total - ready)


def begin() -> float | None:
    """Give freed memory back and begin a new peak; return what the process holds, in MiB.

    What a setup freed would otherwise be used again by the work, unseen.
    """
    gc.collect()
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    peak_memory.forget()
    return peak_memory.resident()


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Return b of the fit cost ~ a * size^b: least squares on logarithms."""
    size, cost = np.log(np.array(points, dtype=float)).T
    return float(np.polyfit(size, cost, 1)[0])


def plot(
    title: str, x_label: str, y_label: str, unit: str, series: Mapping[str, Points]
) -> dict[str, Any]:
    """Return what ``python -m benchmarks --plots`` draws on logarithmic axes."""
    return {
        "title": title,
        "x_label": x_label,
        "y_label": y_label,
        "unit": unit,
        "series": {name: [list(point) for point in points] for name, points in series.items()},
    }
