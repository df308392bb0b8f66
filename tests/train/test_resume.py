"""A run that is cut off and resumed ends where the run ends that was not."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from prod9.build import stage1, stage2
from prod9.build.run_folder import RunFolder, read_checkpoint
from prod9.config import Stage1Config, Stage2Config
from prod9.data import medmnist
from prod9.data.volumes import VolumeSet
from prod9.report.curves import read_history
from prod9.training.stage1 import Stage1Module
from prod9.training.stage2 import Stage2Module

Log = list[tuple[int, list[str], float]]


def use_toy_data(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 28), np.uint8)
    names = [f"toy/{i}" for i in range(6)]
    whole = VolumeSet(images, np.arange(6) % 2, names, ("a", "b"), ((), ()))
    monkeypatch.setattr(medmnist, "load", lambda config, split: whole)


@pytest.fixture(autouse=True)
def toy_data(monkeypatch: pytest.MonkeyPatch) -> None:
    use_toy_data(monkeypatch)


def common(folder: Path, workers: int, validate: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "data": {"dataset_name": "adrenalmnist3d", "batch_size": 2, "num_workers": workers},
        "trainer": {"max_epochs": 3, "limit_val_batches": validate},
        "callbacks": {"preview": {"every_n_steps": 0}},
    }


def stage1_config(folder: Path, workers: int = 0, validate: int = 1) -> Stage1Config:
    return Stage1Config.model_validate(
        {
            **common(folder, workers, validate),
            "autoencoder_export_path": folder / "tokenizer.pt",
            "model": {
                "autoencoder": {"num_channels": (8, 8), "stem_stride": 2, "norm_num_groups": 4},
                "discriminator": {"channels": 4, "num_layers_d": 1},
            },
            "loss": {"loss_type": "ffl", "discriminator_iter_start": 2},
        }
    )


def stage2_config(folder: Path, tokenizer: Path, workers: int = 0) -> Stage2Config:
    sizes = {"hidden_dim": 32, "num_blocks": 1, "num_heads": 2, "token_dim": 8}
    return Stage2Config.model_validate(
        {
            **common(folder, workers, 1),
            "autoencoder_path": tokenizer,
            "model": {"transformer": sizes},
        }
    )


class Recorder:
    """Note (epoch, names, loss) of each batch; cut the run before an epoch begins."""

    def __init__(self, module: type[pl.LightningModule], monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: Log = []
        self.cut: int | None = None
        real = module.training_step

        def step(this: Any, batch: Any, index: int) -> Any:
            result = real(this, batch, index)
            loss = float(this.trainer.callback_metrics["train/loss"])
            self.log.append((this.current_epoch, batch.names, loss))
            return result

        def begin(this: Any) -> None:
            if this.current_epoch == self.cut:
                raise RuntimeError("power cut")

        monkeypatch.setattr(module, "training_step", step)
        monkeypatch.setattr(module, "on_train_epoch_start", begin)

    def take(self) -> Log:
        log, self.log = self.log, []
        return log


# (loader processes, validation batches): without validation, checkpoints are made elsewhere.
@pytest.mark.parametrize(("workers", "validate"), [(0, 1), (0, 0), (1, 0), (1, 1)])
def test_stage1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, validate: int
) -> None:
    recorder = Recorder(Stage1Module, monkeypatch)
    whole = stage1.train(stage1_config(tmp_path / "whole", workers, validate))
    expected = recorder.take()
    assert [epoch for epoch, _, _ in expected] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    config = stage1_config(tmp_path / "cut", workers, validate)
    recorder.cut = 1
    with pytest.raises(RuntimeError, match="power cut"):
        stage1.train(config)
    recorder.cut = None
    assert recorder.take() == expected[:3]
    resumed = stage1.train(config, resume=True)
    assert recorder.take() == expected[3:]
    weights = resumed.autoencoder.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in whole.autoencoder.state_dict().items())


@pytest.fixture(scope="module")
def stage2_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Log, Any], ...]:
    """Log and transformer of a whole run, and of one that was cut and resumed."""
    folder = tmp_path_factory.mktemp("stage2")
    with pytest.MonkeyPatch.context() as patch:
        use_toy_data(patch)
        return runs_of_stage2(folder, patch)


def runs_of_stage2(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[Log, Any], tuple[Log, Any]]:
    tokenizer = folder / "one" / "tokenizer.pt"
    first = stage1_config(folder / "one")
    stage1.train(
        first.model_copy(update={"trainer": first.trainer.model_copy(update={"max_epochs": 1})})
    )
    recorder = Recorder(Stage2Module, monkeypatch)
    whole = stage2.train(stage2_config(folder / "whole", tokenizer))
    expected = recorder.take()
    config = stage2_config(folder / "cut", tokenizer)
    recorder.cut = 1
    with pytest.raises(RuntimeError, match="power cut"):
        stage2.train(config)
    recorder.cut = None
    before = recorder.take()
    resumed = stage2.train(config, resume=True)
    return (expected, whole.transformer), (before + recorder.take(), resumed.transformer)


def test_stage2_sees_the_same_batches(stage2_runs: Any) -> None:
    (expected, _), (resumed, _) = stage2_runs
    assert [row[:2] for row in resumed] == [row[:2] for row in expected]
    assert resumed[:3] == expected[:3]


def test_stage2(stage2_runs: Any) -> None:
    (expected, whole), (losses, resumed) = stage2_runs
    assert losses == expected
    weights = resumed.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in whole.state_dict().items())


def longer(config: Stage1Config, epochs: int) -> Stage1Config:
    trainer = config.trainer.model_copy(update={"max_epochs": epochs, "log_every_n_steps": 1})
    return config.model_copy(update={"trainer": trainer})


def test_last_is_the_last_and_history_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``last.ckpt`` is written also in an epoch that is not among the best."""
    config = longer(stage1_config(tmp_path), 3)
    scores = itertools.count(30, -1)  # ever worse
    monkeypatch.setattr(
        "prod9.training.stage1.psnr", lambda a, b: torch.full((len(a),), float(next(scores)))
    )
    stage1.train(config)
    folder = RunFolder(config.output_dir)
    assert folder.epochs_done() == 3
    (best,) = folder.checkpoints.glob("best-*.ckpt")
    assert read_checkpoint(best)["epoch"] == 0

    before = read_history(folder.history)["train/loss"]
    stage1.train(longer(config, 4), resume=True)
    assert folder.epochs_done() == 4
    assert sorted(path.name for path in folder.checkpoints.iterdir())[-1] == "last.ckpt"
    after = read_history(folder.history)["train/loss"]
    assert after[: len(before)] == before
    assert len(after) > len(before)
