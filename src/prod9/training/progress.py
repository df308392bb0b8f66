"""What a run is doing, how far it is, how fast, and when it will be done."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

_QUIET_SECONDS = 15.0
"""Without a terminal, a line is printed no more often than this."""
_SHOWN = {"train/loss": "loss", "val/psnr": "PSNR", "val/masked_accuracy": "accuracy"}


class TrainingProgress(Callback):
    """A live bar on a terminal; elsewhere a line every few seconds, fit for a log file."""

    def __init__(self, what: str, batch_size: int) -> None:
        self.what, self.batch_size = what, batch_size
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.started = self.printed = 0.0
        self.done = self.whole = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = self.printed = time.monotonic()
        epochs = (trainer.max_epochs or 1) - trainer.current_epoch
        self.done, self.whole = 0, max(1, epochs * int(trainer.num_training_batches))
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
            self.bar = Progress(*columns, TextColumn("{task.fields[line]}"), console=self.console)
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=self.whole, line="")

    def _line(self, trainer: pl.Trainer) -> str:
        speed = self.done / (time.monotonic() - self.started)
        minutes = (self.whole - self.done) / speed / 60
        metrics = trainer.callback_metrics
        figures = [f"{n} {float(metrics[k]):.3f}" for k, n in _SHOWN.items() if k in metrics]
        return "  ".join(
            [f"{minutes:.1f} min left", f"{speed * self.batch_size:.1f} volumes/s", *figures]
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Say where we are."""
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, line=self._line(trainer))
        elif time.monotonic() - self.printed >= _QUIET_SECONDS:
            self.printed = time.monotonic()
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            where = f"{self.what}: {epoch}, batch {self.done}/{self.whole}"
            self.console.print(f"{where}, {self._line(trainer)}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the bar and say how long it took."""
        self._stop()
        seconds = time.monotonic() - self.started
        self.console.print(f"{self.what}: {self.done} batches in {seconds:.0f} s")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
