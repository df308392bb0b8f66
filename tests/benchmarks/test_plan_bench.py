"""The plan's estimates are held against real steps; here the memory of a few, on any machine."""

import pytest

from benchmarks import plan
from benchmarks.contender import Contender
from benchmarks.harness import measure_alone
from benchmarks.plan import MIB, Planned, foot_of, goals_of
from prod9.planning.memory_estimate import LIBRARIES

SMALL = [
    Planned("", 1, {"name": "ffl", "side": 28, "batch": 12}),
    Planned("", 2, {"side": 8, "batch": 8, "patch_size": 2}),
    Planned("", 2, {"side": 8, "batch": 32, "patch_size": 2}),
]


def test_goals_are_bounds_on_both_sides() -> None:
    name = next(iter(plan.CASES))
    for ratio, met in ((0.79, False), (0.81, True), (1.19, True), (1.21, False)):
        goals = goals_of({name: {"memory_ratio": ratio, "time_ratio": 1.0}})
        assert [goal.met for goal in goals] == [met, True]


@pytest.mark.slow
@pytest.mark.parametrize("planned", SMALL, ids=lambda planned: str(planned.arguments))
def test_memory_is_planned_within_a_fifth(planned: Planned) -> None:
    step = plan.stage1_step if planned.stage == 1 else plan.stage2_step
    taken = measure_alone(Contender("a training step", step, planned.arguments), repeats=3)
    assert taken.memory.own is not None
    foot = foot_of(planned.stage, planned.arguments)
    said = (foot.needed(planned.arguments["batch"]) - LIBRARIES) / MIB
    assert 0.8 < said / taken.memory.own < 1.2, (said, taken.memory.own)
