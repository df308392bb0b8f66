"""The machine that measures: what it is, whether it is idle, and how fast it could be."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.stopwatch import median_seconds
from prod9.errors import Prod9Error
from prod9.runtime.machine_speed import processor

BUSY = 0.1
"""Share of the processor time above which other processes spoil a measurement."""
_PROC = Path("/proc")


class BusyMachine(Prod9Error):
    """Others use the machine: a time taken now says nothing."""


@dataclass
class BusyWatch:
    """Filled when the watched block ends."""

    others_share: float | None = None
    busy: bool = False


def describe(threads: int | None = None) -> dict[str, Any]:
    """Say what decides a time besides the code; nothing that tells one machine from its twin."""
    return {
        "processor": processor(),
        "threads": threads or torch.get_num_threads(),
        "logical_cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def busy_ticks(stat: str) -> int:
    """Return the clock ticks in which some processor worked, from the text of /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.split()[1:9])
    return user + nice + system + irq + softirq + steal


def tree_ticks(stats: dict[int, str], root: int) -> int:
    """Return the ticks of ``root`` and all below it, from the texts of /proc/PID/stat.

    Includes children that have ended and were waited for.
    """
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for pid, text in stats.items():
        fields = text.rpartition(")")[2].split()  # a command's name may hold blanks
        children.setdefault(int(fields[1]), []).append(pid)
        ticks[pid] = sum(map(int, fields[11:15]))  # utime, stime, and the same of dead children
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        total += ticks.get(pid, 0)
        waiting += children.get(pid, [])
    return total


@dataclass(frozen=True)
class _Reading:
    seconds: float
    all_ticks: int
    own_ticks: int


def _read() -> _Reading | None:
    """Read the clocks; None where there is no /proc."""
    try:
        everything = busy_ticks((_PROC / "stat").read_text())
    except OSError:
        return None
    stats: dict[int, str] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                stats[int(folder.name)] = (folder / "stat").read_text()
            except OSError:  # it has just ended
                continue
    return _Reading(time.perf_counter(), everything, tree_ticks(stats, os.getpid()))


def others_share(before: _Reading, after: _Reading) -> float:
    """Return the share of all processors' time that other processes used between two readings."""
    capacity = (after.seconds - before.seconds) * os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)
    others = (after.all_ticks - before.all_ticks) - (after.own_ticks - before.own_ticks)
    return min(1.0, max(0.0, others / capacity))


def _busy_now(seconds: float) -> float:
    """Return the share that others use, over a moment; without /proc the load average stands in."""
    before = _read()
    if before is None:
        return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0
    time.sleep(seconds)
    after = _read()
    assert after is not None
    return others_share(before, after)


@contextmanager
def idle_machine(even_if_busy: bool = False, sample: float = 1.0) -> Iterator[BusyWatch]:
    """BusyWatch that nobody else works meanwhile; the processes started inside are one's own.

    They must have ended, and been waited for, or be alive still when the block ends.

    Raises:
        BusyMachine: others use more than a tenth of the machine, before the block (which then does
            not begin) or on average during it; ``even_if_busy`` notes it instead.

    """
    watch = BusyWatch()
    share = _busy_now(sample)
    watch.busy = share > BUSY
    if watch.busy and not even_if_busy:
        raise BusyMachine(
            f"other processes use {share:.0%} of this machine's processors: end them, or wait, and "
            "measure again (--even-if-busy measures all the same, for development)."
        )
    before = _read()
    yield watch
    after = _read()
    if before is not None and after is not None:
        watch.others_share = others_share(before, after)
        watch.busy = watch.busy or watch.others_share > BUSY
        if watch.others_share > BUSY and not even_if_busy:
            raise BusyMachine(
                f"other processes used {watch.others_share:.0%} of this machine's processors "
                "during the measurement, which is thrown away: measure again on an idle machine."
            )


def _rate(work: Callable[[], object], flops: float, repeats: int) -> float:
    """Return GFLOP/s by the median of several runs, after one that does not count."""
    return flops / median_seconds(work, repeats) / 1e9


_CONVOLUTIONS = ((16, 48, 2), (32, 32, 2), (64, 32, 1), (64, 16, 4))
"""Channels, side and batch: what an autoencoder of volumes is made of."""


def _conv3d(repeats: int, shapes: tuple[tuple[int, int, int], ...] = _CONVOLUTIONS) -> float:
    """Return the best rate of a 3 x 3 x 3 convolution, forward and backward."""
    best = 0.0
    for memory_format in (torch.contiguous_format, torch.channels_last_3d):
        for channels, side, batch in shapes:
            shape = (batch, channels, side, side, side)
            x = torch.randn(shape).to(memory_format=memory_format).requires_grad_()
            weight = torch.randn(channels, channels, 3, 3, 3) / channels
            weight = weight.to(memory_format=memory_format).requires_grad_()
            upstream = torch.ones(shape).to(memory_format=memory_format)

            def work(x: Tensor = x, weight: Tensor = weight, upstream: Tensor = upstream) -> object:
                y = F.conv3d(x, weight, padding=1)
                return torch.autograd.grad(y, (x, weight), upstream)

            # Three convolutions of equal cost: the output, the input's gradient, the weight's.
            flops = 3 * 2 * 27 * channels**2 * side**3 * batch
            best = max(best, _rate(work, flops, repeats))
    return best


def _matmul(repeats: int, sizes: tuple[int, ...] = (1024, 2048)) -> float:
    """Return the best rate of a product of square matrices, over the ways PyTorch has."""
    best = 0.0
    for size in sizes:
        x, weight = torch.randn(size, size), torch.randn(size, size)
        # (1, in, 1, positions), channels last: a 1 x 1 convolution is oneDNN's matrix product.
        image = x.t()[None, :, None].to(memory_format=torch.channels_last)
        kernel = weight[:, :, None, None].to(memory_format=torch.channels_last)
        ways: list[Callable[[], object]] = [
            lambda x=x, weight=weight: torch.mm(x, weight),
            lambda x=x, weight=weight: F.linear(x, weight),
            lambda image=image, kernel=kernel: F.conv2d(image, kernel),
        ]
        if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            ways.append(
                lambda x=x, weight=weight: torch.ops.mkldnn._linear_pointwise(
                    x, weight, None, "none", [], ""
                )
            )
        with torch.no_grad():
            best = max(best, *(_rate(way, 2.0 * size**3, repeats) for way in ways))
    return best


def ceilings(kind: str, repeats: int = 5) -> float:
    """Return the machine's best rate in GFLOP/s: ``conv3d`` (with its backward) or ``matmul``.

    Run it in a process of its own: it keeps freed memory, as whoever wants the best rate does.
    """
    from prod9.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    return {"conv3d": _conv3d, "matmul": _matmul}[kind](repeats)
