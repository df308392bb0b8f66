"""Progress of a training run: batches, speed, the time left."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import Progress, TaskID

from prod9.runtime.progress import bar_on, duration

_LINE_SECONDS = 15.0
"""Without a terminal, a line is printed no more often than this."""
_LIVE_SECONDS = 0.5
"""On a terminal, values are read no more often than this, because that waits for the device."""
_SHOWN = {"train/loss": "loss", "val/psnr": "PSNR", "val/masked_accuracy": "accuracy"}


class TrainingProgress(Callback):
    """A live bar on a terminal; elsewhere a line every few seconds, for a log file.

    Batches are counted over the whole run, resumed or not. The speed is that of training alone.
    The time left includes the remaining validations, each as long as they were on average; before
    the first validation it includes none.
    """

    def __init__(self, what: str, batch_size: int) -> None:
        self.what, self.batch_size = what, batch_size
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.started = self.printed = self.validating_since = 0.0
        self.first = self.done = self.whole = 0
        """Batches before this session, so far, and in all."""
        self.validations = 0
        self.validation_seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = self.printed = time.monotonic()
        self.validations, self.validation_seconds = 0, 0.0
        batches = int(trainer.num_training_batches)
        self.first = self.done = trainer.current_epoch * batches
        if trainer.fit_loop.restarting:  # in the middle of an epoch
            self.first = self.done = self.done + trainer.fit_loop.epoch_loop.batch_idx + 1
        self.whole = max(1, (trainer.max_epochs or 1) * batches)
        if self.console.is_terminal:
            self.bar = bar_on(self.console)
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=self.whole, completed=self.done, line="")

    def seconds_per_batch(self) -> float:
        """Return the mean duration of this session's training batches."""
        elapsed = time.monotonic() - self.started - self.validation_seconds
        return elapsed / max(1, self.done - self.first)

    def seconds_left(self, trainer: pl.Trainer) -> float:
        """Return the estimated duration of the rest of the run."""
        rest = (self.whole - self.done) * self.seconds_per_batch()
        if self.validations:
            every = trainer.check_val_every_n_epoch or 1
            left = (trainer.max_epochs or 1) // every - trainer.current_epoch // every
            rest += left * self.validation_seconds / self.validations
        return rest

    def _line(self, trainer: pl.Trainer) -> str:
        speed = self.batch_size / max(self.seconds_per_batch(), 1e-9)
        metrics = trainer.callback_metrics
        values = [f"{n} {float(metrics[k]):.3f}" for k, n in _SHOWN.items() if k in metrics]
        left = duration(self.seconds_left(trainer))
        return "  ".join([f"{left} left", f"{speed:.1f} volumes/s", *values])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Show the progress when it is time."""
        self.done += 1
        due = time.monotonic() - self.printed >= (_LIVE_SECONDS if self.bar else _LINE_SECONDS)
        if due:
            self.printed = time.monotonic()
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)
            if due:
                self.bar.update(self.task, line=self._line(trainer))
        elif due:
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            where = f"{self.what}: {epoch}, batch {self.done}/{self.whole}"
            self.console.print(f"{where}, {self._line(trainer)}")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of a validation."""
        self.validating_since = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it."""
        self.validations += 1
        self.validation_seconds += time.monotonic() - self.validating_since

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the bar and print the duration."""
        self._stop()
        seconds = time.monotonic() - self.started
        self.console.print(f"{self.what}: {self.done - self.first} batches in {seconds:.0f} s")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Restore the terminal."""
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
