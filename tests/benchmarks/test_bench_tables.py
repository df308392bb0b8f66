"""Tables and plots show what the results hold."""

from pathlib import Path

import pytest

from benchmarks.plots import cost_figure, draw, ratios_figure
from benchmarks.registry import found_text, number
from benchmarks.results import Ceiling, GoalResult, Result
from benchmarks.tables import seconds_text, tables

GOAL = GoalResult(
    what="3x as fast as B", needed=3.0, found=3.94, met=True, unit="x", spread=(3.7, 4.1)
)
STEP = Result(
    name="step",
    title="One step.",
    module="stage1_step",
    ours=0.5,
    rivals={"A": 0.25, "B": 1.97},
    ratio={"A": 0.5, "B": 3.94},
    spread={"A": (0.4, 0.6), "B": (3.7, 4.1)},
    memory_mib={"prod9": 812.4, "A": 1400.0},
    ceiling=Ceiling(kind="conv3d", gflops_per_second=200.0, share=0.25),
    per_repeat={"volumes": 4},
    goals=[GOAL],
)
QUALITY = Result(
    name="quality", title="PSNR.", module="own", unit="dB", ours=30.0, rivals={"C": 28.0}
)
GROWTH = Result(
    name="growth",
    title="Growth.",
    module="own",
    goals=[
        GoalResult(what="grows in proportion", needed=(0.9, 1.1), found=1.3, met=False),
    ],
    figures={
        "cost_over_size": {
            "title": "A step",
            "x_label": "side",
            "y_label": "time",
            "unit": "s",
            "series": {"prod9": [[16, 0.1], [32, 0.8]], "A": [[16, 0.3], [32, 2.4]]},
        }
    },
)
RESULTS = {result.name: result for result in (QUALITY, GROWTH, STEP)}


def test_tables() -> None:
    assert (
        tables(RESULTS)
        == """\
### stage1_step

| case | prod9 | A | B | ratio to A | ratio to B | memory, MiB (in this order) \
| share of the ceiling |
| --- | --- | --- | --- | --- | --- | --- | --- |
| `step` | 500 ms (8.00 volumes/s) | 250 ms | 1.97 s | 0.50x (0.40-0.60) | 3.94x (3.70-4.10) \
| 812 / 1,400 / - | 25% of 200 GFLOP/s (conv3d) |

- `step`: One step.
  - met: 3x as fast as B: 3.94x (3.70-4.10)

### own

| case | prod9 | C |
| --- | --- | --- |
| `quality` | 30.0 dB | 28.0 dB |

- `quality`: PSNR.
- `growth`: Growth.
  - **not met**: grows in proportion: 1.30 (bound: 0.90 to 1.10)
"""
    )


def test_what_does_not_count_says_so() -> None:
    busy = STEP.model_copy(update={"busy": True})
    shown = tables({"step": busy})
    assert "| `step (does not count)` |" in shown
    assert "  - does not count: 3x as fast as B: 3.94x" in shown
    assert ratios_figure({"step": busy}) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (83.24, "83.2 s"),
        (1.0, "1.00 s"),
        (0.9999, "1.00 s"),
        (0.0999, "99.9 ms"),
        (0.00045678, "457 µs"),
        (1.2e-8, "0.012 µs"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (999.6, "1,000"), (99.96, "100"), (9.996, "10.0"), (0.0, "0"),
     (0.996, "1.00"), (0.994, "0.99"), (-3.14159, "-3.14"), (0.9, "0.90"), (0.0123, "0.012"),
     (0.000056789, "5.7e-05")],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_a_goal_of_memory() -> None:
    goal = GoalResult(what="", needed=1400.0, found=812.4, met=True, unit="MiB")
    assert found_text(goal) == "812 MiB (bound: 1,400 MiB)"
    assert found_text(goal.model_copy(update={"found": None})) == "not measured"


def test_every_ratio_is_a_dot_and_every_goal_a_mark() -> None:
    figure = ratios_figure(RESULTS)
    assert figure is not None
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["step: A", "step: B"]
    drawn = [line.get_xydata().tolist() for line in axis.lines]
    assert [[0.5, 0.0]] in drawn
    assert [[3.94, 1.0]] in drawn
    assert [[3.7, 1.0], [4.1, 1.0]] in drawn
    goals = [line for line in drawn if len(line) == 2 and line[0][0] == line[1][0] == 3.0]
    assert len(goals) == 1  # A has none
    assert axis.get_xscale() == "log"


def test_costs_are_drawn_as_they_are() -> None:
    (axis,) = cost_figure(GROWTH.figures["cost_over_size"]).axes
    assert [line.get_xydata().tolist() for line in axis.lines] == [
        [[16, 0.1], [32, 0.8]],
        [[16, 0.3], [32, 2.4]],
    ]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert axis.get_ylabel() == "time, s"


def test_pictures(tmp_path: Path) -> None:
    written = draw(RESULTS, tmp_path / "new")
    assert [path.name for path in written] == ["performance_ratios.png", "growth.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert draw({}, tmp_path) == []
