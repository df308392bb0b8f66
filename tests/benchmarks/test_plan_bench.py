"""The plan's estimates are compared with real steps; here the memory of a few, on any machine."""

import pytest

from benchmarks import plan
from benchmarks.plan import Planned, compared, goals_of

SMALL = [
    Planned("", 1, {"name": "ffl", "side": 28, "batch": 12}),
    Planned("", 2, {"side": 8, "batch": 8, "patch_size": 2}),
    Planned("", 2, {"side": 8, "batch": 32, "patch_size": 2}),
]


def test_goals_are_bounds_on_both_sides() -> None:
    name = next(iter(plan.CASES))
    for ratio, met in ((0.74, False), (0.76, True), (1.24, True), (1.26, False)):
        assert [goal.met for goal in goals_of({name: {"memory_ratio": ratio}})] == [met]


@pytest.mark.slow
@pytest.mark.parametrize("planned", SMALL, ids=lambda planned: str(planned.arguments))
def test_memory_is_planned_within_a_quarter(planned: Planned) -> None:
    found = compared(planned)
    assert 0.75 < found["memory_ratio"] < 1.25, found
