"""What ``prod9 plan`` says of a step's memory before a run, against what a real step then takes."""

from dataclasses import dataclass, replace
from typing import Any

from benchmarks.contender import Contender, Work
from benchmarks.harness import measure_alone
from benchmarks.results import GoalResult, Result, goal, result
from benchmarks.stage1_step import configuration
from benchmarks.stage2_step import shipped

WITHIN = 0.25
REPEATS, WARMUP = 3, 2
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


def estimate(stage: int, arguments: dict[str, Any]) -> float:
    """Return what the plan says of the case's step on this CPU, without libraries, in MiB."""
    from prod9.planning.data_sizes import sizes_of
    from prod9.planning.memory import LIBRARIES, estimate_step

    side, batch = arguments["side"], arguments["batch"]
    if stage == 1:
        config = configuration(arguments["name"], side, batch)
    else:
        config = shipped(arguments["patch_size"], f"data.batch_size={batch}")
        side *= sizes_of(config).stride
    cube = (side, side, side)
    sizes = replace(sizes_of(config), volume=cube, sample=cube)
    return (estimate_step(config, sizes, "cpu").memory[False].needed(batch) - LIBRARIES) / MIB


def compared(planned: Planned) -> dict[str, float]:
    """Estimate a case, and measure it in a process of its own."""
    step = stage1_step if planned.stage == 1 else stage2_step
    taken = measure_alone(
        Contender("a training step", step, planned.arguments), repeats=REPEATS, warmup=WARMUP
    )
    assert taken.memory.own is not None
    said = estimate(planned.stage, planned.arguments)
    return {
        "measured_mib": taken.memory.own,
        "planned_mib": said,
        "memory_ratio": said / taken.memory.own,
    }


def goals_of(figures: dict[str, dict[str, float]]) -> list[GoalResult]:
    """Each estimate within a quarter of what was measured."""
    bounds = (1 - WITHIN, 1 + WITHIN)
    return [
        goal(f"{CASES[name].title}: memory planned over measured", bounds, each["memory_ratio"])
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
            "What `prod9 plan` says of a training step's memory, over what a real step in a "
            "process of its own takes.",
            goals=goals_of(figures),
            figures=figures,
            repeats=REPEATS,
        )
    ]
