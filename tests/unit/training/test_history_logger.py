"""The history's file: what is in it, row by row, and what a full disk leaves of it."""

import resource
import sys
from pathlib import Path

import pytest
import torch

from prod9.errors import Prod9Error
from prod9.training import loggers
from prod9.training.loggers import HistoryLogger


def content(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_bytes().decode().split("\r\n")


def test_rows_and_columns_by_hand(tmp_path: Path) -> None:
    logger = HistoryLogger(tmp_path / "history")
    logger.log_metrics({"train/loss": torch.tensor(0.5), "epoch": 0}, 4)
    assert content(tmp_path / "history") == ["epoch,step,train/loss", "0,4,0.5", ""]
    logger.log_metrics({"epoch": 1, "train/loss": float("nan")}, 5)
    logger.log_metrics({"epoch": 1, "val/loss": 0.1, "a,b": 2.0}, 6)
    logger.log_metrics({"epoch": 1}, 3)
    assert content(tmp_path / "history") == [
        '"a,b",epoch,step,train/loss,val/loss',
        ",0,4,0.5,",
        ",1,5,nan,",
        "2.0,1,6,,0.1",
        ",1,3,,",
        "",
    ]
    assert [path.name for path in (tmp_path / "history").iterdir()] == ["metrics.csv"]


def test_the_same_file_as_lightning_writes(tmp_path: Path) -> None:
    from pytorch_lightning.loggers import CSVLogger

    both = [HistoryLogger(tmp_path / "own"), CSVLogger(tmp_path / "theirs", "", "")]
    for step in range(12):
        row = {"train/loss": 1 / (step + 3), "epoch": step // 4}
        if step % 4 == 3:
            row |= {"val/psnr": 20 + step / 7, f"val/{step // 8}": 1e-9 * step}
        for logger in both:
            logger.log_metrics(row, step)
            logger.save()
    texts = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("own", "theirs")]
    assert texts[0] == texts[1]


def test_what_is_there_before_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("before")
    HistoryLogger(tmp_path).log_metrics({"x": 1.0}, 0)
    assert (tmp_path / "metrics-until-part-00001.csv").read_text() == "before"
    assert content(tmp_path) == ["step,x", "0,1.0", ""]


def test_a_file_that_was_removed_gets_its_header_again(tmp_path: Path) -> None:
    logger = HistoryLogger(tmp_path)
    logger.log_metrics({"x": 1.0}, 0)
    (tmp_path / "metrics.csv").unlink()
    logger.log_metrics({"x": 2.0}, 1)
    assert content(tmp_path) == ["step,x", "1,2.0", ""]


def test_only_the_main_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "is_main", lambda: False)
    HistoryLogger(tmp_path / "history").log_metrics({"x": 1.0}, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
def test_a_full_disk_takes_no_row_and_no_part_of_one(tmp_path: Path) -> None:
    logger = HistoryLogger(tmp_path)
    logger.log_metrics({"x": 1.0}, 0)
    before = content(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))  # room for two bytes of the next line
    try:
        for row in ({"x": 2.0}, {"x": 2.0, "y": 3.0}):
            with pytest.raises(Prod9Error, match=r"metrics\.csv: File too large"):
                logger.log_metrics(row, 1)
            assert content(tmp_path) == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    logger.log_metrics({"x": 2.0, "y": 3.0}, 1)
    assert content(tmp_path) == ["step,x,y", "0,1.0,", "1,2.0,3.0", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
