"""Which of two ways of computing the same sums is faster on this processor.

MKL or oneDNN for a matrix product; oneDNN's own gradient of a convolution's weight, or a
convolution in its place. Which one depends on processor, instruction set and direction. It is
measured once and remembered in prod9's cache folder: the choice decides the last digits of sums,
and the same machine shall give the same numbers in every run.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from statistics import median
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import (
    _disable_current_modes,  # pyright: ignore[reportPrivateUsage]
)

from prod9.errors import Prod9Error
from prod9.files import write_text
from prod9.runtime.cache import cache_dir
from prod9.runtime.machine_speed import processor

Product = Literal["output", "weight", "convolution"]
"""A linear layer's output (and its input's gradient, alike), its weight's gradient, and the
gradient of a convolution's weight."""
_MARGIN = 1.1
"""Another way than PyTorch's is chosen where it is so many times as fast: near a tie, chance would
choose."""
_SIDE, _REPEATS = 512, 7
_CONVOLUTION = (8, 64, 7, 7, 7)


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X @ weight.T + bias by oneDNN, with no gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def exchanged(x: Tensor, gradient: Tensor, padding: Sequence[int]) -> Tensor:
    """Return the gradient of a convolution's weight as a convolution of x by the output's gradient.

    dW[o, c, k] = sum over b, p of x[b, c, p + k] g[b, o, p]: a convolution in which batch and
    channels have changed places. Without AVX-512, oneDNN's own weight gradient reaches half of the
    rate of its convolutions on small grids.
    """
    return F.conv3d(x.transpose(0, 1), gradient.transpose(0, 1), padding=padding).transpose(0, 1)


def prefers(product: Product) -> bool:
    """Whether the other way is faster: :func:`onednn_product`, :func:`exchanged`."""
    return choice()[product]


@cache
def choice() -> dict[Product, bool]:
    """Return for each product whether the other way is faster: remembered, or measured now."""
    neither: dict[Product, bool] = {"output": False, "weight": False, "convolution": False}
    available = torch.backends.mkldnn.is_available()
    if not (available and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return neither
    path, key = cache_dir() / "matrix_products.json", _machine()
    known: dict[str, dict[Product, bool]] = {}
    with suppress(OSError, ValueError, TypeError, AttributeError):
        known = dict(json.loads(path.read_text(encoding="utf-8")))
        if known.get(key, {}).keys() == neither.keys():
            return known[key]
    # Whoever asks may be computing with fake tensors, or counting operations.
    with _disable_current_modes():
        found = _measured()
    with suppress(Prod9Error):  # a cache that cannot be written costs a moment in every run
        write_text(path, json.dumps(known | {key: found}, indent=2) + "\n")
    return found


def _measured() -> dict[Product, bool]:
    one, other = torch.ones(_SIDE, _SIDE), torch.ones(_SIDE, _SIDE)
    x = torch.ones(_CONVOLUTION).contiguous(memory_format=torch.channels_last_3d)
    kernel = torch.ones(x.shape[1], x.shape[1], 3, 3, 3)
    sides, only = (None, [1] * 3, [1] * 3, [1] * 3, False, [0] * 3, 1), [False, True, False]
    return {
        "output": is_faster(lambda: onednn_product(one, other, None), lambda: one @ other.t()),
        "weight": is_faster(
            lambda: onednn_product(one.t(), other.t(), None), lambda: one.t() @ other
        ),
        "convolution": is_faster(
            lambda: exchanged(x, x, [1, 1, 1]),
            lambda: torch.ops.aten.convolution_backward(x, x, kernel, *sides, only),
        ),
    }


def _machine() -> str:
    """Return all that may decide which one is faster."""
    names = "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"
    limits = [os.environ.get(name, "") for name in names]
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return f"{processor()}, {capability} {limits}, {threads} threads, PyTorch {torch.__version__}"


@torch.no_grad()
def is_faster(other: Callable[[], object], plain: Callable[[], object]) -> bool:
    """Whether ``other`` takes clearly less time than ``plain``, measured in turn."""
    seconds: list[list[float]] = [[], []]
    for turn in range(1 + _REPEATS):
        for way, times in zip((other, plain), seconds, strict=True):
            start = time.perf_counter()
            way()
            if turn:  # the first one prepares
                times.append(time.perf_counter() - start)
    return median(seconds[1]) > _MARGIN * median(seconds[0])
