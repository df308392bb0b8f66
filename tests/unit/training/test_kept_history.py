"""Values of a run that was cut off: each once, none lost."""

from pathlib import Path

from prod9.report.curves import read_history
from prod9.training.run_folder import keep_history

HEADER = "epoch,step,train/loss,val/loss\n"


def test_of_steps_that_are_done_again_the_newer_values_count(tmp_path: Path) -> None:
    rows = [f"0,{step},{step}.5,\n" for step in range(6)]
    (tmp_path / "metrics.csv").write_text(HEADER + "".join(rows) + "0,6,6.")  # torn by the kill
    keep_history(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics-until-part-00001.csv"]
    (tmp_path / "metrics.csv").write_text(HEADER + "0,4,7,\n")  # from the checkpoint of step 4
    assert read_history(tmp_path) == {"train/loss": [(s, s + 0.5) for s in range(4)] + [(4, 7)]}


def test_going_back_further_than_the_last_part(tmp_path: Path) -> None:
    """From the checkpoint before the last: steps of two older parts are done again."""
    for steps in (range(4), range(4, 8), range(2, 6)):
        rows = [f"0,{step},{step}.{steps.start},\n" for step in steps]
        keep_history(tmp_path)
        (tmp_path / "metrics.csv").write_text(HEADER + "".join(rows))
    expected = [(0, 0.0), (1, 1.0), (2, 2.2), (3, 3.2), (4, 4.2), (5, 5.2)]
    assert read_history(tmp_path) == {"train/loss": expected}


def test_what_was_lost_and_is_not_done_yet_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(HEADER + "0,0,9,\n0,1,8,\n0,1,,3\n1,2,7,\n1,2,,2\n")
    keep_history(tmp_path)
    (tmp_path / "metrics.csv").write_text(HEADER + "0,1,6,\n")
    assert read_history(tmp_path) == {"train/loss": [(0, 9), (1, 6)], "val/loss": [(1, 3)]}


def test_cut_off_twice_from_the_same_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(HEADER + "0,0,9,\n0,1,8,\n0,2,7,\n")
    keep_history(tmp_path)
    (tmp_path / "metrics.csv").write_text(HEADER + "0,2,6,\n0,3,5,\n")
    keep_history(tmp_path)  # from the checkpoint of step 2 once more
    (tmp_path / "metrics.csv").write_text(HEADER + "0,2,4,\n")
    assert read_history(tmp_path) == {"train/loss": [(0, 9), (1, 8), (2, 4)]}


def test_a_validation_that_will_be_done_again(tmp_path: Path) -> None:
    """It bears the number of the step before it, which stays."""
    rows = HEADER + "0,0,9,\n0,1,8,\n0,1,,3\n"
    (tmp_path / "metrics.csv").write_text(rows)
    keep_history(tmp_path)
    (tmp_path / "metrics.csv").write_text(HEADER + "0,1,,3\n1,2,7,\n")
    assert read_history(tmp_path) == {"train/loss": [(0, 9), (1, 8), (2, 7)], "val/loss": [(1, 3)]}

    (tmp_path / "metrics.csv").write_text(rows)
    (tmp_path / "metrics-until-part-00001.csv").unlink()
    keep_history(tmp_path)  # the epoch is over: it stays
    assert read_history(tmp_path)["val/loss"] == [(1, 3)]


def test_without_values_nothing_happens(tmp_path: Path) -> None:
    keep_history(tmp_path)
    assert list(tmp_path.iterdir()) == []
