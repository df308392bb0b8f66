"""When the last checkpoint is written, and when it is gone back to."""

import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from prod9.config.training import CheckpointConfig
from prod9.errors import Prod9Error
from prod9.runtime.distributed import rank, total, world_size
from prod9.runtime.signals import Stopped, StopSignals
from prod9.training.checkpoint_files import LAST, exists_in, read_last
from prod9.training.nonfinite import NonfiniteGuard
from prod9.training.resume_position import Continuation

_EVERY = "callbacks.checkpoint.every_n_steps"


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` every so many batches and epochs, at the end, and at a signal.

    Always where a batch is completely over: as the next one begins (the averaged weights follow
    after the callbacks' own end of a batch), or at an epoch's end. Who calls ``fit`` does so within
    ``signals.listening()``.

    Args:
        folder: of the checkpoints.
        config: how often.
        continuation: knows where the run is.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, continuation: Continuation) -> None:
        self.folder, self.config, self.continuation = folder, config, continuation
        self.signals = StopSignals()
        self._saved = -1
        """Batches before the last checkpoint."""
        self._shared_batches = 0
        """Of the validation, on every process."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is gone on from is saved."""
        self._saved = self.continuation.loaded.steps

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch before is over: go back, save, stop."""
        self._go_back_if_due(trainer)
        if batch_idx == 0:  # an epoch's end was the place
            return
        self._save_and_stop(trainer, due=self._due_by_steps(trainer))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the batches at which all processes can ask each other."""
        batches = torch.zeros(world_size())
        batches[rank()] = sum(trainer.num_val_batches)
        self._shared_batches = int(total(batches).min())

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Do not wait for the validation's end: it can be done again."""
        if trainer.state.fn == TrainerFn.FITTING and batch_idx < self._shared_batches:
            self._save_and_stop(trainer, due=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save when it is time."""
        self._go_back_if_due(trainer)
        epochs = trainer.current_epoch + 1
        last = trainer.should_stop or epochs >= (trainer.max_epochs or 0)
        due = last or epochs % self.config.every_n_epochs == 0 or self._due_by_steps(trainer)
        self._save_and_stop(trainer, due=due)

    def _due_by_steps(self, trainer: pl.Trainer) -> bool:
        steps, every = self.continuation.here(trainer).steps, self.config.every_n_steps
        return every > 0 and steps % every == 0 and steps != self._saved

    def _save_and_stop(self, trainer: pl.Trainer, *, due: bool) -> None:
        """Save if it is ``due`` or a process was told to stop, and then do that.

        Raises:
            Stopped: a process was told to.
        """
        signum = self.signals.agreed()
        if not (due or signum):
            return
        path, here = self.folder / LAST, self.continuation.here(trainer)
        # Lightning's words for: with optimizers and schedules. Nothing is unpickled.
        trainer.save_checkpoint(path, weights_only=False)
        self._saved = here.steps
        _watch(trainer).saved()
        if signum:
            name = signal.Signals(signum).name
            raise Stopped(signum, f"stopped by {name} {here}, all of it saved in {path}")

    def _go_back_if_due(self, trainer: pl.Trainer) -> None:
        """Take weights, averages, moments and loss scale from the last checkpoint.

        The counters of batches go on, and so do the schedules: what comes next is other data, and
        other randomness, at the rate of its place in the run.

        Raises:
            Prod9Error: there is no checkpoint yet.
        """
        watch = _watch(trainer)
        if not watch.rollback_due:
            return
        watch.rollback_due = False
        if not exists_in(self.folder):
            every = self.config.every_n_steps
            sooner = f"lower {_EVERY} from {every}" if every else f"set {_EVERY}, which is 0"
            raise Prod9Error(
                "trainer.on_nan=rollback, but there is no checkpoint yet to go back to; lower "
                f"training.optimizer.learning_rate, or {sooner}."
            )
        content = read_last(self.folder).content
        trainer.strategy.load_model_state_dict(content, strict=True)
        trainer.strategy.load_optimizer_state_dict(content)
        for config in trainer.lr_scheduler_configs:  # the moments brought the rates of then
            schedule: Any = config.scheduler
            rates = schedule.get_last_lr()
            for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        precision = trainer.precision_plugin
        state = content.get(type(precision).__qualname__)
        if state is not None:
            precision.load_state_dict(state)


def _watch(trainer: pl.Trainer) -> NonfiniteGuard:
    """Return the watch of the module that is trained."""
    watch = trainer.lightning_module.watch
    assert isinstance(watch, NonfiniteGuard)
    return watch
