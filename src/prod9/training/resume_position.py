"""Where a run is, and how a resumed one gets there again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from prod9.runtime.distributed import rank, world_size
from prod9.training.random_streams import seed_step

KEY = "prod9_position"
"""Of a checkpoint: the fields of its :class:`Position`."""


@dataclass(frozen=True)
class Position:
    """How far a run is."""

    epochs: int = 0
    """That are over, with their validation."""
    batches: int = 0
    """Of the next epoch that are done."""
    batch_items: int = 0
    """In each of these, over all processes."""
    steps: int = 0
    """Batches of the whole run that are done."""

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> "Position":
        """Return what a checkpoint says; earlier ones were made at epochs' ends alone."""
        if KEY in checkpoint:
            return cls(**{name: int(value) for name, value in checkpoint[KEY].items()})
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        return cls(epochs=int(checkpoint["epoch"]) + 1, steps=int(progress["total"]["completed"]))

    def batches_of(self, items: int) -> int:
        """Return how many batches of ``items`` are done; of a begun one the rest comes again."""
        return self.batches * self.batch_items // items

    def __str__(self) -> str:
        if not self.batches:
            return f"after epoch {self.epochs}"
        return f"in epoch {self.epochs + 1} after batch {self.batches}"


class Continuation(Callback):
    """Lets each step depend on (seed, step) alone, and a resumed run begin at its own batch.

    Lightning's own counters know neither of another number of processes or batch size, nor (in an
    epoch's middle) how many steps were logged; and they skip a validation that was cut off.
    """

    def __init__(self, seed: int, batch_size: int) -> None:
        self.seed, self.batch_size = seed, batch_size
        self.loaded = Position()

    def here(self, trainer: pl.Trainer) -> Position:
        """Return where the run is now; to be asked between two batches."""
        loop: Any = trainer.fit_loop  # Lightning's counters have types that are too wide
        epochs, batches = loop.epoch_progress, loop.epoch_loop.batch_progress
        under_way = epochs.current.started > epochs.current.processed
        return Position(
            epochs=epochs.current.processed,
            batches=batches.current.completed if under_way else 0,
            batch_items=self.batch_size * world_size(),
            steps=batches.total.completed,
        )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say where we are."""
        checkpoint[KEY] = asdict(self.here(trainer))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note where we were."""
        self.loaded = Position.of(checkpoint)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set Lightning's counters, where it begins in the middle of an epoch."""
        loop: Any = trainer.fit_loop
        if not loop.restarting:
            return
        inner, steps = loop.epoch_loop, self.loaded.steps
        whole = int(trainer.num_training_batches)
        validates = inner._should_check_val_epoch()
        # Without validation the epoch must not look as if it were over: it would train on.
        most = whole if validates else whole - 1
        done = min(self.loaded.batches_of(self.batch_size * world_size()), most)
        _set(inner.batch_progress.total, steps)
        _set(inner.batch_progress.current, done)
        inner.batch_progress.is_last_batch = done == whole
        # The step is counted after the validation that it is followed by.
        inner._batches_that_stepped = steps - int(done == whole)
        # As if cut off in its first batch: it is done (again) where all batches are.
        validation = inner.val_loop.batch_progress
        validation.reset()
        validation.increment_ready()
        validation.increment_started()
        if done == 0:  # nothing of the epoch is left: begin it as after the one before
            for progress in (loop.epoch_progress.total, loop.epoch_progress.current):
                _set(progress, progress.processed)
            loop.restarting = False
        loop.update_restart_stage()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed what dropout draws from."""
        seed_step(self.seed, trainer.fit_loop.total_batch_idx, rank())


def _set(progress: Any, count: int) -> None:
    progress.ready = progress.started = progress.processed = progress.completed = count
