"""Where the time of a training step goes, and how near its heavy operations are to the ceiling.

Every operation of a real step is timed where it runs. Then each convolution and matrix product is
called alone, with the same shapes, in every layout and by every library that PyTorch offers here:
the fastest of them is that shape's ceiling.
"""

import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.lightning_steps import LightningSteps
from benchmarks.results import GoalResult, Result, goal, result
from benchmarks.stopwatch import median_seconds
from prod9.planning.flops import operation_flops

KINDS = {
    "aten::convolution": "convolutions",
    "aten::convolution_backward": "convolutions",
    "mkldnn::_linear_pointwise": "matrix products",
    "aten::mm": "matrix products",
    "aten::addmm": "matrix products",
    "aten::bmm": "matrix products",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": "attention",
}
LEAST_SHARE_OF_CEILING, MOST_ELSE = 0.7, 0.25
STEPS, ALONE, WARM_UP = 5, 7, 2
_SHOWN = 12


@dataclass(frozen=True)
class Shape:
    """What is left of a tensor when its numbers are forgotten."""

    sides: tuple[int, ...]
    strides: tuple[int, ...]

    def tensor(self) -> Tensor:
        if 0 in self.strides:  # one number seen in many places, such as a sum's gradient
            return torch.randn(()).expand(self.sides)
        return torch.empty_strided(self.sides, self.strides).normal_()


@dataclass
class Operation:
    """Calls of one operation with equal shapes and equal other arguments."""

    function: Any
    arguments: tuple[Any, ...]
    flops: float
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.function._schema.name

    @property
    def sides(self) -> list[tuple[int, ...]]:
        return [a.sides for a in self.arguments if isinstance(a, Shape)]


class OperationTimer(TorchDispatchMode):
    """Times every heavy operation where it runs. (On a CPU each ends before the next begins.)"""

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[str, Operation] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func._schema.name not in KINDS:
            return func(*args, **(kwargs or {}))
        start = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        seconds = time.perf_counter() - start
        plain = tuple(
            Shape(tuple(a.shape), a.stride()) if isinstance(a, Tensor) else a for a in args
        )
        key = f"{func} {plain}"
        if key not in self.operations:
            flops = operation_flops(func, args, kwargs or {}, out)
            self.operations[key] = Operation(func, plain, flops)
        self.operations[key].seconds.append(seconds)
        return out


def ways(operation: Operation) -> list[Callable[[], object]]:
    """Return the operation alone, on new numbers, in every way that gives the same result."""
    arguments = [a.tensor() if isinstance(a, Shape) else a for a in operation.arguments]

    def as_it_is() -> object:
        return operation.function(*arguments)

    def in_layout(layout: torch.memory_format) -> Callable[[], object]:
        moved = [
            a.contiguous(memory_format=layout) if isinstance(a, Tensor) and a.ndim == 5 else a
            for a in arguments
        ]
        return lambda: operation.function(*moved)

    found = [as_it_is]
    if operation.name.startswith("aten::convolution"):
        found += [in_layout(torch.channels_last_3d), in_layout(torch.contiguous_format)]
    elif operation.name == "mkldnn::_linear_pointwise":
        x, weight, bias = arguments[0].flatten(0, -2), arguments[1].t(), arguments[2]
        found.append(lambda: x @ weight if bias is None else torch.addmm(bias, x, weight))
    elif operation.name == "aten::mm" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        a, b = arguments[0], arguments[1].t()
        found.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
    elif operation.name == "aten::addmm" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        bias, a, b = arguments[0], arguments[1], arguments[2].t()
        found.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], ""))
    return found


def figures_of(step: Callable[[], object], watched: Callable[[OperationTimer], object]) -> Any:
    """Shares of a step's time by kind, and each kind's share of its shapes' ceilings."""
    total = median_seconds(step, STEPS, WARM_UP)
    timer = OperationTimer()
    watched(timer)
    kinds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    rows: list[dict[str, Any]] = []
    for operation in timer.operations.values():
        kind, count = KINDS[operation.name], len(operation.seconds)
        spent = sum(operation.seconds)
        kinds[kind]["seconds"] += spent
        kinds[kind]["flops"] += operation.flops * count
        best = None
        if kind != "attention":  # its backward pass needs numbers that belong together
            best = min(median_seconds(way, ALONE, WARM_UP) for way in ways(operation))
            kinds[kind]["alone"] += best * count
        rows.append(
            {
                "operation": operation.name,
                "sides": operation.sides,
                "calls": count,
                "milliseconds": 1e3 * spent,
                "gflops_per_second": operation.flops * count / spent / 1e9,
                "share_of_ceiling": None if best is None else best * count / spent,
            }
        )
    rows.sort(key=lambda row: -row["milliseconds"])
    heavy = sum(kind["seconds"] for kind in kinds.values())
    return {
        "seconds": total,
        "shares": {
            **{name: kind["seconds"] / total for name, kind in kinds.items()},
            "everything else": 1 - heavy / total,
        },
        "gflops_per_second": {n: k["flops"] / k["seconds"] / 1e9 for n, k in kinds.items()},
        "share_of_ceiling": {
            n: k["alone"] / k["seconds"] for n, k in kinds.items() if "alone" in k
        },
        "slowest": rows[:_SHOWN],
    }


def stage1(name: str, side: int, batch: int, seed: int = 0) -> Any:
    """Profile a Stage 1 step in this process."""
    from benchmarks.stage1_step import build_module, configuration, images
    from prod9.data.crops import Batch
    from prod9.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(seed)
    config = configuration(name, side, batch)
    data = Batch(
        images(batch, side, seed), torch.zeros(batch, dtype=torch.long), ["synthetic"] * batch
    )
    return _profiled(LightningSteps(build_module(config), data, config.trainer))


def stage2(side: int, patch_size: int, batch: int, seed: int = 0) -> Any:
    """Profile a Stage 2 step in this process."""
    from benchmarks.stage2_step import build_network, shipped
    from prod9.data.tokens.store import TokenBatch
    from prod9.runtime.allocator import keep_freed_memory
    from prod9.training.stage2_module import Stage2Module

    keep_freed_memory()
    torch.manual_seed(seed)
    config = shipped(patch_size)
    network = build_network(config, side)
    tokens = torch.randint(network.codebook_size, (batch, side, side, side))
    data = TokenBatch(tokens, torch.zeros(batch, dtype=torch.long), ["synthetic"] * batch)
    return _profiled(LightningSteps(Stage2Module(config, network), data, config.trainer))


def _profiled(steps: LightningSteps) -> Any:
    try:
        return figures_of(steps.step, steps.step_under)
    finally:
        steps.close()


PROFILES: dict[str, tuple[str, Callable[..., Any], tuple[Any, ...]]] = {
    "profile_stage1_28": ("Stage 1, ffl widths, 28^3, batch 8", stage1, ("ffl", 28, 8)),
    "profile_stage1_base_28": ("Stage 1, base widths, 28^3, batch 2", stage1, ("base", 28, 2)),
    "profile_stage1_64": ("Stage 1, ffl widths, 64^3, batch 2", stage1, ("ffl", 64, 2)),
    "profile_stage2_512": ("Stage 2, 512 positions, batch 2", stage2, (8, 1, 2)),
    "profile_stage2_4096": ("Stage 2, 4,096 positions, batch 1", stage2, (16, 1, 1)),
    "profile_stage2_packed": ("Stage 2 as shipped, 4,096 tokens, batch 4", stage2, (16, 2, 4)),
}


def goals_of(figures: Any) -> list[GoalResult]:
    shares: list[GoalResult] = [
        goal(
            f"{kind} reach {LEAST_SHARE_OF_CEILING:.0%} of the ceiling for their shapes",
            LEAST_SHARE_OF_CEILING,
            share,
        )
        for kind, share in figures["share_of_ceiling"].items()
        if figures["shares"][kind] > 0.1  # where there are so few, nothing is to be gained
    ]
    rest = figures["shares"]["everything else"]
    what = f"everything else takes under {MOST_ELSE:.0%} of the step"
    return [*shares, goal(what, MOST_ELSE, rest, better="lower")]


def run() -> list[Result]:
    found: list[Result] = []
    for name, (title, profile, arguments) in PROFILES.items():
        print(f"  {name}: {title}", flush=True)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=_threads, initargs=_now()) as one:
            figures = one.submit(profile, *arguments).result()
        what = f"Where a training step's time goes: {title}"
        found.append(
            result(
                name,
                what,
                ours=figures["seconds"],
                goals=goals_of(figures),
                figures=figures,
                repeats=STEPS,
            )
        )
    return found


def _now() -> tuple[int]:
    return (torch.get_num_threads(),)


def _threads(count: int) -> None:
    torch.set_num_threads(count)
