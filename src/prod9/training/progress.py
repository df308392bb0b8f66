"""What a run is doing, how far it is, how fast, and when it will be done."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_QUIET_SECONDS = 15.0
"""Without a terminal, a line is printed no more often than this."""


class TrainingProgress(Callback):
    """A live bar on a terminal; elsewhere a line every few seconds, fit for a log file."""

    def __init__(self, what: str, batch_size: int) -> None:
        self.what, self.batch_size = what, batch_size
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.task: Any = None
        self.started = self.printed = 0.0
        self.done = 0

    def _figures(self, trainer: pl.Trainer) -> str:
        names = {"train/loss": "loss", "val/psnr": "PSNR", "val/masked_accuracy": "accuracy"}
        metrics = trainer.callback_metrics
        return "  ".join(f"{n} {float(metrics[k]):.3f}" for k, n in names.items() if k in metrics)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = self.printed = time.monotonic()
        self.done = 0
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn(self.what),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=self.console,
            )
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=self._total(trainer), figures="")

    def _total(self, trainer: pl.Trainer) -> int:
        epochs = (trainer.max_epochs or 1) - trainer.current_epoch
        return max(1, epochs * int(trainer.num_training_batches))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Say where we are."""
        self.done += 1
        now = time.monotonic()
        if self.bar is None and now - self.printed < _QUIET_SECONDS:
            return
        speed = self.done / (now - self.started)
        figures = f"{speed * self.batch_size:.1f} volumes/s  {self._figures(trainer)}"
        if self.bar is not None:
            self.bar.update(self.task, advance=1, figures=figures)
            return
        self.printed = now
        total = trainer.max_epochs and self._total(trainer)
        # current_epoch advances during the run, so the whole is what is done plus what is left.
        whole = max(self.done, int(total or 0) + self.done - self._in_epoch(trainer))
        left = (whole - self.done) / speed
        self.console.print(
            f"{self.what}: epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, "
            f"batch {self.done}/{whole}, {left / 60:.1f} min left, {figures}",
            highlight=False,
        )

    def _in_epoch(self, trainer: pl.Trainer) -> int:
        return self.done % max(1, int(trainer.num_training_batches))

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the bar and say how long it took."""
        self._stop()
        seconds = time.monotonic() - self.started
        self.console.print(
            f"{self.what}: {self.done} batches in {seconds:.0f} s  {self._figures(trainer)}",
            highlight=False,
        )

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal as it was."""
        self._stop()
