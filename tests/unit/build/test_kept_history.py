"""Values of a run that was cut off: each once, none lost."""

from pathlib import Path

from prod9.build.history import keep_history
from prod9.report.curves import read_history
from prod9.training.position import Position

HEADER = "epoch,step,train/loss,val/loss\n"


def test_steps_that_will_be_done_again_are_left_out(tmp_path: Path) -> None:
    rows = [f"0,{step},{step}.5,\n" for step in range(6)]
    (tmp_path / "metrics.csv").write_text(HEADER + "".join(rows) + "0,6,6.")  # torn by the kill
    keep_history(tmp_path, Position(0, 4, 2, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics-until-part-00001.csv"]
    assert read_history(tmp_path) == {"train/loss": [(s, s + 0.5) for s in range(4)]}


def test_cut_off_twice_from_the_same_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(HEADER + "0,0,9,\n0,1,8,\n0,2,7,\n")
    keep_history(tmp_path, Position(0, 2, 2, 2))
    (tmp_path / "metrics.csv").write_text(HEADER + "0,2,6,\n0,3,5,\n")
    keep_history(tmp_path, Position(0, 2, 2, 2))  # from the checkpoint of step 2 once more
    (tmp_path / "metrics.csv").write_text(HEADER + "0,2,4,\n")
    assert read_history(tmp_path) == {"train/loss": [(0, 9), (1, 8), (2, 4)]}


def test_a_validation_that_will_be_done_again(tmp_path: Path) -> None:
    """It bears the number of the step before it, which stays."""
    rows = HEADER + "0,0,9,\n0,1,8,\n0,1,,3\n"
    (tmp_path / "metrics.csv").write_text(rows)
    keep_history(tmp_path, Position(epochs=0, batches=2, batch_items=2, steps=2))
    (tmp_path / "metrics.csv").write_text(HEADER + "0,1,,3\n1,2,7,\n")
    assert read_history(tmp_path) == {"train/loss": [(0, 9), (1, 8), (2, 7)], "val/loss": [(1, 3)]}

    (tmp_path / "metrics.csv").write_text(rows)
    (tmp_path / "metrics-until-part-00001.csv").unlink()
    keep_history(tmp_path, Position(epochs=1, steps=2))  # the epoch is over: it stays
    assert read_history(tmp_path)["val/loss"] == [(1, 3)]


def test_without_values_nothing_happens(tmp_path: Path) -> None:
    keep_history(tmp_path, Position())
    assert list(tmp_path.iterdir()) == []
