"""Training runs of a second, on toy data, that can be cut off anywhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from prod9.config import Stage1Config, Stage2Config
from prod9.data import medmnist
from prod9.data.array_dataset import ArrayDataset
from prod9.report.curves import History, read_history

Log = list[tuple[int, list[str], float]]
"""Epoch, names of the batch, loss."""


class PowerCut(Exception):
    """The run ends here, without a goodbye."""


def use_toy_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six volumes of two classes, in training and validation."""
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 28), np.uint8)
    names = [f"toy/{i}" for i in range(6)]
    whole = ArrayDataset(
        "toy", images[:, None], names=names, classes=np.arange(6) % 2, class_names=("a", "b")
    )
    monkeypatch.setattr(medmnist, "load", lambda config, split: whole)


def common(folder: Path, **settings: Any) -> dict[str, Any]:
    """Return what both stages share; ``settings`` are dotted keys with ``__`` for the dot."""
    values: dict[str, Any] = {
        "output_dir": folder,
        "data": {"dataset_name": "adrenalmnist3d", "batch_size": 2, "num_workers": 0},
        "trainer": {"max_epochs": 3, "limit_val_batches": 1, "log_every_n_steps": 1},
        "callbacks": {"preview": {"every_n_steps": 0}, "checkpoint": {}},
        "training": {"scheduler": {"warmup_steps": 2}},
        "loss": {},
        "model": {},
    }
    for name, value in settings.items():
        *sections, key = name.split("__")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        section[key] = value
    return values


def stage1_config(folder: Path, **settings: Any) -> Stage1Config:
    """Return nine steps of Stage 1, with a discriminator from the third on."""
    values = common(folder, **settings)
    values["autoencoder_export_path"] = folder / "tokenizer.pt"
    values["model"] |= {
        "autoencoder": {"num_channels": (8, 8), "stem_stride": 2, "norm_num_groups": 4},
        "discriminator": {"channels": 4, "num_layers_d": 1},
    }
    values["loss"] = {"loss_type": "ffl", "discriminator_iter_start": 2} | values["loss"]
    return Stage1Config.model_validate(values)


def stage2_config(folder: Path, tokenizer: Path, **settings: Any) -> Stage2Config:
    """Return nine steps of Stage 2, with dropout."""
    values = common(folder, **settings)
    values["autoencoder_path"] = tokenizer
    sizes = {"hidden_dim": 32, "num_blocks": 1, "num_heads": 2, "token_dim": 8, "dropout": 0.2}
    values["model"] |= {"transformer": sizes}
    return Stage2Config.model_validate(values)


class Recorder:
    """Notes (epoch, names, loss) of each batch; cuts the run off where it is told."""

    def __init__(self, module: type[pl.LightningModule], monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: Log = []
        self.cut: tuple[int, int] | None = None
        """Before this batch of this epoch."""
        real = module.training_step

        def step(this: Any, batch: Any, index: int) -> Any:
            if (this.current_epoch, index) == self.cut:
                raise PowerCut
            result = real(this, batch, index)
            loss = float(this.trainer.callback_metrics["train/loss"])
            self.log.append((this.current_epoch, batch.names, loss))
            return result

        monkeypatch.setattr(module, "training_step", step)

    def take(self) -> Log:
        """Return what was noted since the last time."""
        log, self.log = self.log, []
        return log


def learned(folder: Path) -> dict[str, Any]:
    """Return what the last checkpoint holds, but for the paths in it."""
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {
        name: content[name]
        for name in ("state_dict", "optimizer_states", "lr_schedulers", "prod9_position")
    }


def logged(folder: Path) -> History:
    """Return a run's history.

    Without the accuracies by mask ratio: where a step has none, Lightning repeats the last one that
    it was told since the epoch, or the session, began.
    """
    history = read_history(folder / "history")
    return {k: v for k, v in history.items() if not k.startswith("train/masked_accuracy_")}


def same(a: Any, b: Any) -> bool:
    """Whether two nests of tensors and plain data are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
