"""Progress of a training run: batches, speed, the time left."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from prod9.runtime.console import say
from prod9.runtime.progress import ProgressLine

_SHOWN = {"train/loss": "loss", "val/psnr": "PSNR", "val/masked_accuracy": "accuracy"}


class TrainingProgress(Callback):
    """Count batches over the whole run, resumed or not; rate and time left include validations."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.line: ProgressLine | None = None
        self.first = self.done = self.whole = 0
        """Batches before this session, so far, and in all."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock with the first batch of this session."""
        if self.line is None:
            batches = int(trainer.num_training_batches)
            self.first = self.done = trainer.current_epoch * batches + batch_idx
            self.whole = max(1, (trainer.max_epochs or 1) * batches)
            self.line = ProgressLine(self.what, "batches")
            self.line.start(self.first)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Show the progress when it is time: reading the values waits for the device."""
        self.done += 1
        if self.line is not None and self.line.due():
            found = trainer.callback_metrics
            values = [f"{n} {float(found[key]):.3f}" for key, n in _SHOWN.items() if key in found]
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self.line.show(self.done, self.whole, "  ".join(["", epoch, *values]))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar and print the duration."""
        self.teardown()
        if self.line is not None:
            seconds = time.monotonic() - self.line.began
            say(f"{self.what}: {self.done - self.first} batches in {seconds:.0f} s")

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Remove the bar, also after an error."""
        if self.line is not None:
            self.line.stop()
