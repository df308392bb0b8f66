"""What ``prod9 plan`` says before a run against what a real step then takes: memory and time."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.contender import Contender, Work
from benchmarks.harness import measure_alone
from benchmarks.results import GoalResult, Result, goal, result
from benchmarks.stage1_step import configuration
from benchmarks.stage2_step import STAGE1, shipped
from prod9.config import Stage1Config
from prod9.config.load import load
from prod9.data.medmnist_table import class_names

if TYPE_CHECKING:
    from prod9.planning.memory_estimate import Footprint

WITHIN = 0.2
STEPS, WARMUP = 5, 2
MIB = 2**20


@dataclass(frozen=True)
class Planned:
    """One case: a shipped configuration, the side of its samples, a batch."""

    title: str
    stage: int
    arguments: dict[str, Any]


CASES: dict[str, Planned] = {
    "stage1_ffl_28_8": Planned(
        "Stage 1, ffl widths, 8 x 28^3", 1, {"name": "ffl", "side": 28, "batch": 8}
    ),
    "stage1_ffl_64_2": Planned(
        "Stage 1, ffl widths, 2 x 64^3", 1, {"name": "ffl", "side": 64, "batch": 2}
    ),
    "stage1_ffl_64_6": Planned(
        "Stage 1, ffl widths, 6 x 64^3", 1, {"name": "ffl", "side": 64, "batch": 6}
    ),
    "stage1_base_28_4": Planned(
        "Stage 1, base widths, 4 x 28^3", 1, {"name": "base", "side": 28, "batch": 4}
    ),
    "stage2_8_16": Planned(
        "Stage 2 as shipped, 16 x 8^3 tokens", 2, {"side": 8, "batch": 16, "patch_size": 2}
    ),
    "stage2_8_64": Planned(
        "Stage 2 as shipped, 64 x 8^3 tokens", 2, {"side": 8, "batch": 64, "patch_size": 2}
    ),
    "stage2_16_4": Planned(
        "Stage 2 as shipped, 4 x 16^3 tokens", 2, {"side": 16, "batch": 4, "patch_size": 2}
    ),
    "stage2_unpacked_8_4": Planned(
        "Stage 2, a position a token, 4 x 8^3 tokens", 2, {"side": 8, "batch": 4, "patch_size": 1}
    ),
}


def stage1_step(name: str, side: int, batch: int) -> Work:
    """Return a real step of Stage 1, in its Lightning loop."""
    from benchmarks.stage1_step import prod9_step

    return prod9_step(name, side, batch, seed=0)


def stage2_step(side: int, batch: int, patch_size: int) -> Work:
    """Return a real step of Stage 2, in its Lightning loop."""
    from benchmarks.stage2_step import prod9

    return prod9(side, batch, patch_size, seed=0)


def foot_of(stage: int, arguments: dict[str, Any]) -> "Footprint":
    """Return what the plan builds on: the footprint of the case's step on this CPU."""
    from prod9.planning.fake_steps import (
        Rehearsed,
        TokenSizes,
        rehearse_stage1,
        rehearse_stage2,
    )
    from prod9.planning.fake_tensors import Setting
    from prod9.planning.memory_estimate import Footprint

    cpu, sides = Setting("cpu", "fp32"), (arguments["side"],) * 3

    def first(batch: int, checkpointing: bool) -> Rehearsed:
        config = configuration(arguments["name"], arguments["side"], arguments["batch"])
        return rehearse_stage1(config, sides, batch, cpu, checkpointing=checkpointing)

    def second(batch: int, checkpointing: bool) -> Rehearsed:
        stage1 = load(STAGE1, Stage1Config)
        levels = stage1.model.autoencoder.levels
        classes = len(class_names(stage1.data.dataset_name))
        sizes = TokenSizes(levels, sides, sides, classes, 0)
        config = shipped(arguments["patch_size"])
        return rehearse_stage2(config, sizes, batch, cpu, checkpointing=checkpointing)

    return Footprint(cache(first if stage == 1 else second), cpu, checkpointing=False)


def estimate(stage: int, arguments: dict[str, Any]) -> dict[str, float]:
    """Return what the plan says, without the process's libraries, MiB and seconds."""
    from prod9.planning.memory_estimate import LIBRARIES
    from prod9.planning.plan import step_seconds
    from prod9.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    foot, batch = foot_of(stage, arguments), arguments["batch"]
    return {
        "mib": (foot.needed(batch) - LIBRARIES) / MIB,
        "seconds": step_seconds(foot, batch).of(batch),
    }


def compared(planned: Planned) -> dict[str, float]:
    """Measure a case and estimate it, each in a process of its own."""
    step = stage1_step if planned.stage == 1 else stage2_step
    taken = measure_alone(
        Contender("a training step", step, planned.arguments), repeats=STEPS, warmup=WARMUP
    )
    said = _alone(planned)
    assert taken.memory.own is not None
    seconds = sorted(taken.seconds)[len(taken.seconds) // 2]
    return {
        "measured_mib": taken.memory.own,
        "planned_mib": said["mib"],
        "memory_ratio": said["mib"] / taken.memory.own,
        "measured_seconds": seconds,
        "planned_seconds": said["seconds"],
        "time_ratio": said["seconds"] / seconds,
    }


def _alone(planned: Planned) -> dict[str, float]:
    import torch

    from benchmarks.worker import Worker

    with Worker("the plan", torch.get_num_threads()) as worker:
        return worker.call(
            "benchmarks.plan:estimate", stage=planned.stage, arguments=planned.arguments
        )


def goals_of(figures: dict[str, dict[str, float]]) -> list[GoalResult]:
    """Each estimate within a fifth of what was measured."""
    bounds = (1 - WITHIN, 1 + WITHIN)
    return [
        goal(f"{CASES[name].title}: {what} planned over measured", bounds, each[f"{what}_ratio"])
        for what in ("memory", "time")
        for name, each in figures.items()
    ]


def run() -> list[Result]:
    figures: dict[str, dict[str, float]] = {}
    for name, planned in CASES.items():
        print(f"  plan: {planned.title}", flush=True)
        figures[name] = compared(planned)
    return [
        result(
            "plan",
            "What `prod9 plan` says of a training step's memory and time, over what a real step in "
            "a process of its own takes.",
            goals=goals_of(figures),
            figures=figures,
            repeats=STEPS,
        )
    ]
