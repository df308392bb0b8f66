"""How long a training will take on this machine, said before its first step."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from prod9.runtime.console import say
from prod9.runtime.distributed import world_size
from prod9.runtime.progress import duration
from prod9.training.bare_step import rehearsal, take_step
from prod9.training.stage_module import StageModule

FEWEST = 20
"""Shorter runs, in steps, are not forecast: they have ended before one could do something else."""


@dataclass(frozen=True)
class Phase:
    """Steps of a run that cost alike."""

    steps: int
    seconds: float
    """Of one, with the reading of its batch."""
    what: str = ""


@dataclass(frozen=True)
class Forecast:
    """Steps and validations to come, and what they cost; previews and checkpoints are left out."""

    phases: tuple[Phase, ...]
    validations: int
    validation_seconds: float
    """Of one."""

    @property
    def seconds(self) -> float:
        steps = sum(phase.steps * phase.seconds for phase in self.phases)
        return steps + self.validations * self.validation_seconds

    def __str__(self) -> str:
        phases = ", then ".join(
            f"{phase.steps:,} steps of {phase.seconds:.2g} s{phase.what}" for phase in self.phases
        )
        timed = "measured on 2 of them" if len(self.phases) == 1 else "measured on one of each"
        after = ""
        if self.validations:
            plural = "" if self.validations == 1 else "s"
            after = f"; {self.validations} validation{plural} of {self.validation_seconds:.2g} s"
        return f"about {duration(self.seconds)} on this machine ({phases}, {timed}{after})"


class ForecastLine(Callback):
    """Print the forecast before the first step of this session.

    For a run of one process: with several, a step waits for the others.

    Args:
        validation: its batches, which Lightning does not know before the first validation.
    """

    def __init__(self, validation: DataLoader[Any]) -> None:
        self.validation = validation
        self.done = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measure steps with the first batch, which the first real step has next."""
        if self.done or not isinstance(pl_module, StageModule):
            return
        self.done = True
        epochs = trainer.max_epochs or 1
        steps = (epochs - trainer.current_epoch) * int(trainer.num_training_batches) - batch_idx
        if steps < FEWEST:
            return
        if world_size() > 1:
            say(f"{pl_module.title}: with several processes the time left is known once they work")
            return
        try:
            say(f"{pl_module.title}: {forecast(trainer, pl_module, batch, steps, self.validation)}")
        except (MemoryError, RuntimeError) as error:
            if not any(word in f"{type(error)}{error}" for word in ("Memory", "allocate memory")):
                raise
            say(f"{pl_module.title}: no forecast, it needs more memory than there is")


def forecast(
    trainer: pl.Trainer,
    module: StageModule[Any],
    batch: Any,
    steps: int,
    validation: DataLoader[Any],
) -> Forecast:
    """Measure ``steps`` to come, the validations between them, and the reading of both.

    Costs three steps and one validation batch; see :func:`prod9.training.bare_step.rehearsal`.
    """
    later = min(steps, max(0, module.costlier_from() - module.batches_seen))
    read, _ = _reading(cast("DataLoader[Any]", trainer.train_dataloader), 1)
    with rehearsal(module):

        def seconds(taken: int) -> float:
            module.batches_seen = taken
            with _timed(module.device) as spent:
                take_step(module, batch, trainer.precision_plugin.train_step_context())
            return spent() + read

        taken, costlier = module.batches_seen, module.costlier_from()
        if 0 < later < steps:
            seconds(costlier)  # the first one is slower
            costly = Phase(steps - later, seconds(costlier), f" with {module.costlier_with}")
            phases = (Phase(later, seconds(taken)), costly)
        else:
            seconds(taken)
            phases = (Phase(steps, (seconds(taken) + seconds(taken)) / 2),)
        count, each = _validation(trainer, module, validation)
    return Forecast(phases, count, each)


def _validation(
    trainer: pl.Trainer, module: StageModule[Any], loader: DataLoader[Any]
) -> tuple[int, float]:
    """Return how many validations there will be, and the seconds of one."""
    every, epochs = trainer.check_val_every_n_epoch or 1, trainer.max_epochs or 1
    count = epochs // every - trainer.current_epoch // every
    batches, limit = len(loader), trainer.limit_val_batches
    batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit or 0)
    if not count or not batches:
        return 0, 0.0
    read, batch = _reading(loader, 0)
    batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
    module.on_validation_epoch_start()
    precision = trainer.precision_plugin.val_step_context()
    with _timed(module.device) as spent, torch.no_grad(), precision:
        module.validation_step(batch, 0)
    return count, batches * (spent() + read)


def _reading(loader: DataLoader[Any], which: int) -> tuple[float, Any]:
    """Read one of the first batches; return the seconds that a step waits for such, and it."""
    sampler: Any = loader.sampler
    *_, key = islice(sampler, which + 1)  # the last one where there are not so many
    start = time.perf_counter()
    batch = loader.dataset[key]
    seconds = time.perf_counter() - start
    return (0.0 if loader.num_workers else seconds), batch


@contextmanager
def _timed(device: torch.device) -> Generator[Callable[[], float]]:
    """Give a function that returns the duration of the block, once it has ended."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    ends = [now()]
    yield lambda: ends[1] - ends[0]
    ends.append(now())
