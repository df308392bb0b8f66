"""Checkpoints while training: when they are written, and how a run continues from one."""

import signal
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import dump
from prod9.errors import Prod9Error
from prod9.runtime.distributed import gather, rank, world_size
from prod9.runtime.random_streams import seed_step
from prod9.runtime.signals import Stopped, StopSignals
from prod9.torch_files import write_plain
from prod9.training.checkpoint_files import (
    CONFIG_KEY,
    LAST,
    POSITION_KEY,
    Position,
    exists_in,
    read_last,
    write_last,
)
from prod9.training.nonfinite import NonfiniteGuard
from prod9.training.stage_module import StageModule


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, written atomically; the one before ``last.ckpt`` is kept."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a temporary file, then rename it."""
        write = write_last if Path(path).name == LAST else write_plain
        write(Path(path), checkpoint)


class LastCheckpoint(Checkpoint):
    """Write ``folder/last.ckpt`` every so many batches and epochs, at the end, and at a signal.

    It is written between two batches: when the next batch starts (the EMA is updated after the
    callbacks' own end of a batch), or at the end of an epoch. Every checkpoint gets the position
    and the resolved configuration. A resumed run starts at its own batch, with the random numbers
    of its own step: Lightning's counters do not support another number of processes or another
    batch size; in the middle of an epoch they lose the number of logged steps; and they skip an
    interrupted validation.
    """

    def __init__(self, folder: Path, config: Stage1Config | Stage2Config) -> None:
        self.folder, self.config, self.text = folder, config.callbacks.checkpoint, dump(config)
        self.seed, self.batch_size = config.seed, config.data.batch_size
        self.signals = StopSignals()
        self._loaded = Position()
        self._saved = -1
        """Batches before the last checkpoint."""
        self._shared_batches = 0
        """Batches of the validation that every process has."""

    def now(self, trainer: pl.Trainer) -> Position:
        """Return the current position; valid between two batches."""
        loop: Any = trainer.fit_loop  # the types of Lightning's counters are too wide
        epochs, batches = loop.epoch_progress, loop.epoch_loop.batch_progress
        in_epoch = epochs.current.started > epochs.current.processed
        return Position(
            epochs=epochs.current.processed,
            batches=batches.current.completed if in_epoch else 0,
            batch_items=self.batch_size * world_size(),
            steps=batches.total.completed,
        )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[POSITION_KEY] = self.now(trainer)._asdict()
        checkpoint[CONFIG_KEY] = self.text

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._loaded = Position(**checkpoint[POSITION_KEY])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set Lightning's counters where the run starts in the middle of an epoch."""
        self._saved = self._loaded.steps
        loop: Any = trainer.fit_loop
        if not loop.restarting:
            return
        inner, steps = loop.epoch_loop, self._loaded.steps
        whole = int(trainer.num_training_batches)
        validates = inner._should_check_val_epoch()
        # Without validation an epoch that is complete would be trained on.
        most = whole if validates else whole - 1
        done = min(self._loaded.batches_of(self.batch_size * world_size()), most)
        _set(inner.batch_progress.total, steps)
        _set(inner.batch_progress.current, done)
        inner.batch_progress.is_last_batch = done == whole
        # The step before a validation is counted after that validation.
        inner._batches_that_stepped = steps - int(done == whole)
        # As if interrupted in its first batch, so that the validation is done (again).
        validation = inner.val_loop.batch_progress
        validation.reset()
        validation.increment_ready()
        validation.increment_started()
        if done == 0:  # start the epoch as after the one before it
            for progress in (loop.epoch_progress.total, loop.epoch_progress.current):
                _set(progress, progress.processed)
            loop.restarting = False
        loop.update_restart_stage()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed dropout; return to the last checkpoint, save or stop, where it is time."""
        seed_step(self.seed, trainer.fit_loop.total_batch_idx, rank())
        self._roll_back_if_due(trainer)
        if batch_idx > 0:  # else it was done at the end of the epoch
            self._save_and_stop(trainer, due=self._due_by_steps(trainer))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the batches at which all processes can agree on a signal."""
        self._shared_batches = min(gather(int(sum(trainer.num_val_batches))))

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop at a signal: the validation is repeated when the run is resumed."""
        if batch_idx < self._shared_batches:
            self._save_and_stop(trainer, due=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._roll_back_if_due(trainer)
        epochs = trainer.current_epoch + 1
        last = trainer.should_stop or epochs >= (trainer.max_epochs or 0)
        due = last or epochs % self.config.every_n_epochs == 0 or self._due_by_steps(trainer)
        self._save_and_stop(trainer, due=due)

    def _due_by_steps(self, trainer: pl.Trainer) -> bool:
        steps, every = self.now(trainer).steps, self.config.every_n_steps
        return every > 0 and steps % every == 0 and steps != self._saved

    def _save_and_stop(self, trainer: pl.Trainer, *, due: bool) -> None:
        """Save if it is ``due`` or a process has received a signal; in that case stop.

        Raises:
            Stopped: a process has received a signal.
        """
        signum = self.signals.agreed()
        if not (due or signum):
            return
        path, now = self.folder / LAST, self.now(trainer)
        # weights_only=False makes Lightning save optimizers and schedules as well.
        trainer.save_checkpoint(path, weights_only=False)
        self._saved = now.steps
        _guard(trainer).saved()
        if signum:
            name = signal.Signals(signum).name
            raise Stopped(signum, f"stopped by {name} {now}, all of it saved in {path}")

    def _roll_back_if_due(self, trainer: pl.Trainer) -> None:
        """Restore weights, EMA, moments and loss scale from the last checkpoint.

        Batches and schedules continue: the next steps use other data and other random numbers, at
        the learning rate of their own place in the run.

        Raises:
            Prod9Error: there is no checkpoint yet.
        """
        guard = _guard(trainer)
        if not guard.rollback_due:
            return
        guard.rollback_due = False
        if not exists_in(self.folder):
            raise Prod9Error(
                "trainer.on_nan=rollback, but there is no checkpoint yet to go back to; lower "
                "training.optimizer.learning_rate, or callbacks.checkpoint.every_n_steps, which is "
                f"{self.config.every_n_steps} (0: never)."
            )
        content = read_last(self.folder).content
        trainer.strategy.load_model_state_dict(content, strict=True)
        trainer.strategy.load_optimizer_state_dict(content)
        for config in trainer.lr_scheduler_configs:  # the optimizer's state has the old rates
            schedule: Any = config.scheduler
            rates = schedule.get_last_lr()
            for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        precision = trainer.precision_plugin
        state = content.get(type(precision).__qualname__)
        if state is not None:
            precision.load_state_dict(state)


def _guard(trainer: pl.Trainer) -> NonfiniteGuard:
    return cast(StageModule[Any], trainer.lightning_module).nonfinite_guard


def _set(progress: Any, count: int) -> None:
    progress.ready = progress.started = progress.processed = progress.completed = count
