"""What lies on a shared disk is looked up by the main process, and the others are told."""

from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from prod9.config import Stage1Config
from prod9.errors import Prod9Error
from prod9.training import stage1, trainer
from prod9.training.checkpoint_files import Position


def config(folder: Path) -> Stage1Config:
    data = {"dataset_name": "adrenalmnist3d"}
    settings = {"output_dir": folder / "run", "autoencoder_export_path": folder / "tokenizer.pt"}
    return Stage1Config.model_validate({**settings, "data": data, "trainer": {"devices": 2}})


def test_whether_there_is_a_tokenizer_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "join", lambda trainer: None)
    for module in (trainer, stage1):
        monkeypatch.setattr(module, "is_main", lambda: False)
    monkeypatch.setattr(stage1, "of_main", lambda own: True)
    with pytest.raises(Prod9Error, match=r"tokenizer\.pt exists"):
        stage1.train(config(tmp_path))


def test_where_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(trainer, "set_epoch", lambda loader, *place: begun.append(place))
    position = Position(epochs=3, batches=4, steps=9, batch_items=4)
    trainer.start_where_it_ended(position, config(tmp_path), DataLoader([1, 2]))  # batches of 8
    assert begun == [(3, 2)]
