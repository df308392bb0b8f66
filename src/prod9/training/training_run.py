"""The run of either stage, once its networks and its data are there."""

from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from prod9.config import Stage1Config, Stage2Config
from prod9.runtime.distributed import is_main, world_size
from prod9.training.previews import Preview, Previews
from prod9.training.progress import TrainingProgress
from prod9.training.resume import start_where_it_ended
from prod9.training.run_folder import RunFolder
from prod9.training.trainer import build_trainer, fit_module


def run_training(
    config: Stage1Config | Stage2Config,
    folder: RunFolder,
    module: pl.LightningModule,
    train: DataLoader[Any],
    val: DataLoader[Any] | None,
    *,
    title: str,
    monitor: str,
    mode: Literal["min", "max"],
    preview: Preview | None,
    resume: bool,
) -> pl.Trainer:
    """Train, with progress, pictures and checkpoints; return the trainer.

    Args:
        config: of the stage.
        folder: of the run.
        module: of the stage.
        train: batches to learn from.
        val: batches to validate on.
        title: of the progress lines.
        monitor: figure by which the best checkpoints are kept.
        mode: whether it should fall or rise.
        preview: draws a picture; none without.
        resume: go on from the last checkpoint.

    Raises:
        Prod9Error: there is no whole checkpoint to go on from.
        Stopped: at a signal, with everything saved.
    """
    at_once = config.data.batch_size * world_size()
    callbacks: list[Callback] = [TrainingProgress(title, at_once)] if is_main() else []
    if preview is not None:
        every = config.callbacks.preview.every_n_steps
        callbacks.append(Previews(folder.previews, every, preview))
    trainer = build_trainer(config, folder, monitor=monitor, mode=mode, callbacks=callbacks)
    point = start_where_it_ended(folder, config, train) if resume else None
    fit_module(trainer, module, train, val, point)
    return trainer
