"""Lightning's checkpoints: when ``last.ckpt`` is written and read, and what else they hold."""

import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.trainer.states import TrainerFn

from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import dump
from prod9.config.training import CheckpointConfig
from prod9.errors import Prod9Error
from prod9.runtime.distributed import gather
from prod9.runtime.signals import Stopped, StopSignals
from prod9.torch_files import write_plain
from prod9.training.checkpoint_files import LAST, exists_in, read_last, write_last
from prod9.training.nonfinite import NonfiniteGuard
from prod9.training.resume_position import ResumePosition
from prod9.training.run_folder import CONFIG_KEY


class WholeCheckpoints(TorchCheckpointIO):
    """Write checkpoints atomically, and keep the one before ``last.ckpt``."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a temporary file, then rename it."""
        target = Path(path)
        if target.name == LAST:
            write_last(target, checkpoint)
        else:
            write_plain(target, checkpoint)


class StampConfig(Callback):
    """Put the resolved configuration into every checkpoint."""

    def __init__(self, config: Stage1Config | Stage2Config) -> None:
        self.text = dump(config)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add it."""
        checkpoint[CONFIG_KEY] = self.text


class LastCheckpoint(Checkpoint):
    """Write ``last.ckpt`` every so many batches and epochs, at the end, and at a signal.

    It is written between two batches: when the next batch starts (the EMA is updated after the
    callbacks' own end of a batch), or at the end of an epoch. Signals are noted only while
    ``signals.listening()`` is active around ``Trainer.fit``.

    Args:
        folder: of the checkpoints.
        config: how often.
        position: knows how far the run is.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, position: ResumePosition) -> None:
        self.folder, self.config, self.position = folder, config, position
        self.signals = StopSignals()
        self._saved = -1
        """Batches before the last checkpoint."""
        self._shared_batches = 0
        """Batches of the validation that every process has."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the checkpoint that was loaded exists."""
        self._saved = self.position.loaded.steps

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Return to the last checkpoint, save or stop, where it is time."""
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
        if trainer.state.fn == TrainerFn.FITTING and batch_idx < self._shared_batches:
            self._save_and_stop(trainer, due=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where it is time."""
        self._roll_back_if_due(trainer)
        epochs = trainer.current_epoch + 1
        last = trainer.should_stop or epochs >= (trainer.max_epochs or 0)
        due = last or epochs % self.config.every_n_epochs == 0 or self._due_by_steps(trainer)
        self._save_and_stop(trainer, due=due)

    def _due_by_steps(self, trainer: pl.Trainer) -> bool:
        steps, every = self.position.now(trainer).steps, self.config.every_n_steps
        return every > 0 and steps % every == 0 and steps != self._saved

    def _save_and_stop(self, trainer: pl.Trainer, *, due: bool) -> None:
        """Save if it is ``due`` or a process has received a signal; in that case stop.

        Raises:
            Stopped: a process has received a signal.
        """
        signum = self.signals.agreed()
        if not (due or signum):
            return
        path, now = self.folder / LAST, self.position.now(trainer)
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
    guard = trainer.lightning_module.nonfinite_guard
    assert isinstance(guard, NonfiniteGuard)
    return guard
