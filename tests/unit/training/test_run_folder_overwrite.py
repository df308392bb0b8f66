"""``--overwrite`` leaves nothing of the run before, or says what it cannot remove."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from prod9.config import Stage1Config
from prod9.errors import Prod9Error
from prod9.training.run_folder import RunFolder


def old_run(root: Path) -> Stage1Config:
    config = Stage1Config.model_validate(
        {
            "output_dir": root,
            "autoencoder_export_path": root / "tokenizer.pt",
            "data": {"dataset_name": "organmnist3d"},
        }
    )
    RunFolder(root).claim(config, resume=False, overwrite=False)
    for part in ("checkpoints", "previews", "history", "tensorboard", "nonfinite"):
        (root / part).mkdir()
        (root / part / "old").write_text("old")
    torch.save({}, root / "checkpoints" / "last.ckpt")
    return config


def test_nothing_is_left(tmp_path: Path) -> None:
    config = old_run(tmp_path)
    RunFolder(tmp_path).claim(config, resume=False, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_values_of_a_run_that_left_no_checkpoint_are_put_aside(tmp_path: Path) -> None:
    config = old_run(tmp_path)
    for number in (1, 2):
        (tmp_path / "checkpoints" / "last.ckpt").unlink(missing_ok=True)
        RunFolder(tmp_path).claim(config, resume=False, overwrite=False)
        assert not (tmp_path / "history").exists()
        assert (tmp_path / f"history-{number}" / "old").read_text() == "old"
        (tmp_path / "history").mkdir()
        (tmp_path / "history" / "old").write_text("old")
    assert (tmp_path / "nonfinite" / "old").exists()


def test_checkpoints_that_stay_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new run would be resumed from one of the old."""
    config = old_run(tmp_path)

    def refuse(path: Path, ignore_errors: bool = False, **rest: Any) -> None:
        if not ignore_errors:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(Prod9Error) as caught:
        RunFolder(tmp_path).claim(config, resume=False, overwrite=True)
    assert str(caught.value) == (
        f"cannot remove {tmp_path / 'checkpoints'}: Permission denied; remove it by hand, or "
        "choose another output_dir."
    )
    assert (tmp_path / "config.yaml").is_file()  # it is still a run that can be replaced
