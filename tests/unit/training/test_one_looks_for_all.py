"""What lies on a shared disk is looked up by the main process, and the others are told."""

from pathlib import Path

import pytest

from prod9.config import Stage1Config
from prod9.errors import Prod9Error
from prod9.training import stage1, trainer


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
