"""How far a run is, and how a resumed run continues there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from prod9.runtime.processes import rank, world_size
from prod9.runtime.random_streams import seed_step

KEY = "prod9_position"
"""Key of a checkpoint: the fields of its :class:`Position`."""


@dataclass(frozen=True)
class Position:
    """How far a run is."""

    epochs: int = 0
    """Finished epochs, with their validation."""
    batches: int = 0
    """Finished batches of the next epoch."""
    batch_items: int = 0
    """Items in each of these batches, over all processes."""
    steps: int = 0
    """Finished batches of the whole run."""

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> "Position":
        """Return the position of a checkpoint; early ones were written only at epochs' ends."""
        if KEY in checkpoint:
            return cls(**{name: int(value) for name, value in checkpoint[KEY].items()})
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        return cls(epochs=int(checkpoint["epoch"]) + 1, steps=int(progress["total"]["completed"]))

    def batches_of(self, items: int) -> int:
        """Return the number of finished batches of ``items``; one that is part done is repeated."""
        return self.batches * self.batch_items // items

    def __str__(self) -> str:
        if not self.batches:
            return f"after epoch {self.epochs}"
        return f"in epoch {self.epochs + 1} after batch {self.batches}"


class ResumePosition(Callback):
    """Seed each step by (seed, step), and let a resumed run start at its own batch.

    Lightning's counters do not support another number of processes or another batch size; in the
    middle of an epoch they lose the number of logged steps; and they skip an interrupted
    validation.
    """

    def __init__(self, seed: int, batch_size: int) -> None:
        self.seed, self.batch_size = seed, batch_size
        self.loaded = Position()

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
        """Save the position."""
        checkpoint[KEY] = asdict(self.now(trainer))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Read the position."""
        self.loaded = Position.of(checkpoint)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set Lightning's counters where the run starts in the middle of an epoch."""
        loop: Any = trainer.fit_loop
        if not loop.restarting:
            return
        inner, steps = loop.epoch_loop, self.loaded.steps
        whole = int(trainer.num_training_batches)
        validates = inner._should_check_val_epoch()
        # Without validation an epoch that is complete would be trained on.
        most = whole if validates else whole - 1
        done = min(self.loaded.batches_of(self.batch_size * world_size()), most)
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
        """Seed the generators that dropout uses."""
        seed_step(self.seed, trainer.fit_loop.total_batch_idx, rank())


def _set(progress: Any, count: int) -> None:
    progress.ready = progress.started = progress.processed = progress.completed = count
