"""Result files: what is written is what is read; what is no result is left out."""

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.results import Ceiling, GoalResult, Result, goal, read_all, result
from prod9.errors import Prod9Error


def _full() -> Result:
    return Result(
        name="a",
        title="A.",
        ours=0.5,
        rivals={"r": 1.0},
        ratio={"r": 2.0},
        spread={"r": (1.9, 2.1)},
        goals=[GoalResult(what="2x", needed=(1.0, 3.0), found=2.0, met=True)],
        ceiling=Ceiling(kind="conv3d", gflops_per_second=100.0, share=0.25),
        seconds={"prod9": [0.4, 0.5, 0.6]},
        figures={"cost_over_size": {"series": {"x": [[1, 2.5]]}}},
    )


def test_read_back_as_written(tmp_path: Path) -> None:
    path = _full().save(tmp_path / "new")
    assert path.name == "a.json"
    assert json.loads(path.read_text())["kind"] == "prod9-benchmark"
    assert read_all(tmp_path / "new") == {"a": _full()}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]  # no temporary file left


def test_files_of_another_kind_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"name": "fsq", "ours": 1.0}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "table.csv").write_text("a,b")
    assert read_all(tmp_path) == {}
    assert read_all(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    "text", ['{"kind": "prod9-benchmark", "name": "a", "title": "", "speed": 1}', "{"]
)
def test_a_broken_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(Prod9Error, match=r"broken\.json cannot be read"):
        read_all(tmp_path)


def test_what_is_no_number_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Result(name="a", title="", ours=math.nan)
    with pytest.raises(ValueError, match="not JSON compliant"):
        Result(name="a", title="", figures={"x": math.inf}).save(tmp_path)
    assert not (tmp_path / "a.json").exists()


def test_a_ratio_above_one_means_that_prod9_is_better() -> None:
    faster = result("a", "", ours=2.0, rivals={"r": 5.0})
    assert (faster.ratio, faster.unit) == ({"r": 2.5}, "s")
    more = result("a", "", ours=5.0, rivals={"r": 2.0}, better="higher", unit="volumes/s")
    assert more.ratio == {"r": 2.5}
    # A ratio of logarithms says nothing.
    louder = result("a", "", ours=30.0, rivals={"r": 28.0}, better="higher", unit="dB")
    assert (louder.rivals, louder.ratio) == ({"r": 28.0}, {})
    none = result("a", "", figures={"exponent": 1.0}, memory_mib={"prod9": 3.0})
    assert (none.ours, none.ratio, none.met, none.goal) == (None, {}, None, None)
    assert none.memory_mib == {"prod9": 3.0}
    with pytest.raises(ValidationError):
        result("a", "", memory=3)


@pytest.mark.parametrize(
    ("needed", "found", "better", "met"),
    [
        (1.0, 1.0, "higher", True),
        (1.0, 0.99, "higher", False),
        (1.0, 1.0, "lower", True),
        (1.0, 1.01, "lower", False),
        ((0.9, 1.1), 0.9, "higher", True),
        ((0.9, 1.1), 1.1, "higher", True),
        ((0.9, 1.1), 1.11, "higher", False),
        ((0.9, 1.1), 0.89, "higher", False),
    ],
)
def test_goals(needed, found, better, met) -> None:
    assert goal("g", needed, found, better=better).met is met


def test_one_goal_that_is_missed_is_enough() -> None:
    goals = [goal("first", 1.0, 2.0), goal("second", 3.0, 2.0)]
    found = result("a", "", goals=goals)
    assert (found.met, found.goal) == (False, "first; second")
    assert result("a", "", goals=goals[:1]).met is True
