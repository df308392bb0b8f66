"""The history of a run holds every row that was logged before the kill, wherever that is."""

from collections.abc import Generator
from pathlib import Path

import pytest
from kill_targets import history_value
from nursery import Kill, Nursery, Work

from prod9.report.curves import read_history

WORK = Work("kill_targets:history")


@pytest.fixture(scope="module")
def nursery() -> Generator[Nursery]:
    nursery = Nursery("kill_targets")
    yield nursery
    nursery.close()


def killed(nursery: Nursery, folder: Path, kill: Kill) -> int:
    """Kill the logger there; return how many rows are left, after looking at them."""
    folder.mkdir()
    ending = nursery.run(WORK, folder, kill)
    assert ending.killed, ending.output
    told = len(ending.output.split())
    found = read_history(folder)
    rows = len(found.get("train/loss", []))
    assert told <= rows <= told + 1, (kill, ending.calls[-1:])
    for name, pairs in found.items():
        expected = [(s, history_value(name, s)) for s in range(rows - len(pairs), rows)]
        assert pairs == expected, kill
    for number in range(3):
        assert len(found.get(f"val/{number}", [])) == max(0, rows - 30 * number - 20)
    return rows


def test_before_calls(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    survey = nursery.run(WORK, tmp_path / "whole")
    assert survey.code == 0, survey.output
    renames = [k for k, call in enumerate(survey.calls) if call.startswith("os.rename")]
    assert len(renames) == 4  # the first row, and three columns more
    # About the new columns each call, and some of the lines that are added.
    near = {k + d for k in renames for d in range(-2, 4)} & set(range(len(survey.calls)))
    rows = [
        killed(nursery, tmp_path / str(k), Kill("call", k))
        for k in sorted(near | set(range(0, len(survey.calls), 25)))
    ]
    assert rows == sorted(rows)
    assert {0, 1, 20, 21, 50, 51, 80, 81} <= set(rows)


def test_in_mid_write(nursery: Nursery, tmp_path: Path) -> None:
    places = [0, 10, 40, 41, *range(60, 2600, 171)]
    rows = [killed(nursery, tmp_path / str(k), Kill("byte", k)) for k in places]
    assert rows == sorted(rows)
    assert rows[0] == 0
    assert rows[-1] > 40
