"""How fast this machine computes, and how long the demonstration takes on it."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from prod9.runtime.device import resolve_device

DEMO_TFLOP = 134.0
"""Seconds of `prod9 demo` on a CPU times the conv3d rate of the same run (one core with AVX2).

`prod9 demo` prints its own at its end."""
_ENOUGH_SECONDS, _MOST = 0.1, 3
"""Runs of a measurement, after one that does not count: until so long, and at most so many."""
_CHANNELS, _SIDE, _BATCH = 96, 14, 8
_MATRIX, _COPIED = 1024, 1 << 24


@dataclass(frozen=True)
class MachineSpeed:
    """Rates in fp32 of one device, each a median of few runs.

    ``matmul`` and ``conv3d`` in GFLOP/s, ``copy`` in GB/s; also ``device``, ``instructions`` (a
    CPU's instruction set) and ``threads``.
    """

    device: str
    """``cpu`` or ``cuda``."""
    instructions: str
    """Of a CPU: the instruction set that PyTorch computes with; of a GPU: its name."""
    threads: int
    """Of the CPU, that PyTorch uses."""
    matmul: float
    """GFLOP/s of a product of matrices, 1024 x 1024."""
    conv3d: float
    """GFLOP/s of a 3 x 3 x 3 convolution, forward: 8 volumes of 14^3, 96 channels to 96."""
    copy: float
    """GB/s, read and written, of a copy of 64 MiB."""

    @property
    def demo_seconds(self) -> float:
        """About how long `prod9 demo` takes on this CPU."""
        return DEMO_TFLOP * 1000 / self.conv3d


def processor() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine_speed(accelerator: str = "auto") -> MachineSpeed:
    """Measure this machine, in about half a second.

    Args:
        accelerator: ``auto``, ``cpu`` or ``gpu``.

    Raises:
        Prod9Error: there is no such device.
    """
    device = resolve_device(accelerator)
    # Not random: whoever trains next must draw the same numbers as without this.
    matrix = torch.full((_MATRIX, _MATRIX), 0.5, device=device)
    shape = (_BATCH, _CHANNELS, _SIDE, _SIDE, _SIDE)
    layout = torch.channels_last_3d  # the autoencoder's
    x = torch.full(shape, 0.5, device=device).contiguous(memory_format=layout)
    weight = torch.full((_CHANNELS, _CHANNELS, 3, 3, 3), 0.01, device=device)
    weight = weight.contiguous(memory_format=layout)
    source = torch.ones(_COPIED, device=device)
    target = torch.empty_like(source)
    with torch.no_grad():
        matmul = _seconds(lambda: matrix @ matrix, device)
        conv3d = _seconds(lambda: F.conv3d(x, weight, padding=1), device)
        copy = _seconds(lambda: target.copy_(source), device)
    return MachineSpeed(
        device=device.type,
        instructions=_instructions(device),
        threads=torch.get_num_threads(),
        matmul=2 * _MATRIX**3 / matmul / 1e9,
        conv3d=2 * 27 * _CHANNELS**2 * _SIDE**3 * _BATCH / conv3d / 1e9,
        copy=2 * source.nbytes / copy / 1e9,
    )


def _instructions(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")  # convolutions are oneDNN's
    return torch.backends.cpu.get_cpu_capability() + (f", oneDNN up to {limit}" if limit else "")


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the median duration of ``work``."""
    runs: list[float] = []
    for turn in range(1 + _MOST):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn:
            runs.append(time.perf_counter() - start)
        if sum(runs) > _ENOUGH_SECONDS:
            break
    return statistics.median(runs)
