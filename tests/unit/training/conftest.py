"""Runs of a second: tiny volumes and tokens in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl

from prod9.data.array_dataset import ArrayDataset
from prod9.training.trainer import quieten_lightning


@pytest.fixture(scope="session")
def volumes() -> ArrayDataset:
    """Return eight smooth volumes of 12^3, two classes."""
    random = np.random.default_rng(0)
    axis = np.linspace(0, 3, 12)
    waves = [
        np.sin(a * axis[:, None, None] + b * axis[:, None] + c * axis)
        for a, b, c in random.uniform(-2, 2, (8, 3))
    ]
    return ArrayDataset(
        "toy",
        ((np.stack(waves)[:, None] + 1) * 127.5).astype(np.uint8),
        names=[f"toy/{i}" for i in range(8)],
        classes=np.arange(8) % 2,
        class_names=("a", "b"),
    )


@pytest.fixture
def make_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a maker of quiet trainers on the CPU, which write into a folder of their own."""
    monkeypatch.chdir(tmp_path)
    quieten_lightning()

    def make(**settings: Any) -> pl.Trainer:
        quiet: dict[str, Any] = {
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "default_root_dir": tmp_path,
        }
        return pl.Trainer(**(quiet | settings))

    return make
