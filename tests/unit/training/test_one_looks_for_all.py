"""What lies on a shared disk is looked up by the main process, and the others are told."""

from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from prod9.config import Stage1Config
from prod9.errors import Prod9Error
from prod9.training import loggers, stage1, trainer
from prod9.training.resume_position import Position
from prod9.training.run_folder import ResumePoint, RunFolder


def config(folder: Path) -> Stage1Config:
    data = {"dataset_name": "adrenalmnist3d"}
    settings = {"output_dir": folder / "run", "autoencoder_export_path": folder / "tokenizer.pt"}
    return Stage1Config.model_validate({**settings, "data": data, "trainer": {"devices": 2}})


def never(*args: Any) -> Any:
    raise AssertionError("this is for the main process to look at")


def test_whether_there_is_a_tokenizer_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage1, "join", lambda trainer: None)
    monkeypatch.setattr(stage1, "is_main", lambda: False)
    monkeypatch.setattr(stage1, "of_main", lambda own: True)
    with pytest.raises(Prod9Error, match=r"tokenizer\.pt exists"):
        stage1.train(config(tmp_path))


def test_where_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    position = Position(epochs=3, batches=0, steps=9, batch_items=4)
    point = ResumePoint(tmp_path / "last.ckpt", position, "", None)
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(trainer, "is_main", lambda: False)
    monkeypatch.setattr(trainer, "of_main", lambda own: point)
    monkeypatch.setattr(RunFolder, "resume_point", never)
    monkeypatch.setattr(trainer, "set_epoch", lambda loader, *place: begun.append(place))
    found = trainer.start_where_it_ended(RunFolder(tmp_path), config(tmp_path), DataLoader([1, 2]))
    assert found == point
    assert begun == [(3, 0)]


def test_what_tensorboard_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "is_main", lambda: False)
    monkeypatch.setattr(RunFolder, "can_resume", never)
    monkeypatch.setattr(RunFolder, "resume_point", never)
    assert len(loggers.build_loggers(config(tmp_path).trainer, RunFolder(tmp_path))) == 2
