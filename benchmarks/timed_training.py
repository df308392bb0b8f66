"""Train for a number of seconds: a clock that stops for evaluations, a schedule that follows it."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from prod9.config.training import SchedulerConfig
from prod9.data.batches import set_epoch
from prod9.data.volumes import Batch
from prod9.metrics.psnr import psnr
from prod9.training.ema import EMA
from prod9.training.optimizer import rate_at


class Budget:
    """Seconds of training, the same for whoever spends them.

    Args:
        seconds: the training ends with the first step that is done at or after them.
        schedule: prod9's; its length is the number of steps that the rate so far lets expect, so
            that it ends with the budget.
        marks: seconds after which ``evaluate`` is called as well.
        evaluate: called with the clock stopped, at the marks and at the end.
        now: the clock.

    """

    def __init__(
        self,
        seconds: float,
        schedule: SchedulerConfig,
        marks: Iterable[float],
        evaluate: Callable[[], float],
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.seconds, self.schedule = seconds, schedule
        self._marks = sorted({mark for mark in marks if mark < seconds} | {seconds})
        self._evaluate, self._now = evaluate, now
        self._began = 0.0
        self.steps = 0
        self.curve: list[tuple[float, float]] = []
        """(seconds spent, value) of each evaluation."""

    def start(self) -> None:
        """Begin to count, before the first batch is asked for."""
        self._began = self._now()

    def rate(self) -> float:
        """Return the rate of the step that is about to be made, over the peak rate."""
        spent = self._now() - self._began
        expected = self.steps * self.seconds / spent if self.steps and spent > 0 else 1e9
        return rate_at(self.steps, max(self.steps + 1, round(expected)), self.schedule)

    def step_done(self) -> bool:
        """Count a step; return whether the budget is spent."""
        self.steps += 1
        stopped = self._now()
        spent = stopped - self._began
        if spent >= self._marks[0]:
            self._marks = [mark for mark in self._marks if mark > spent]
            self.curve.append((spent, self._evaluate()))
            self._began += self._now() - stopped
        return not self._marks


class SpendBudget(Callback):
    """Let Lightning's loop spend a budget, at the budget's learning rate."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.budget.start()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # The module's own schedule, whose length nobody knows beforehand, has set another rate.
        set_rate(trainer.optimizers, self.budget.rate())

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.budget.step_done():
            trainer.should_stop = True


def set_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Set every learning rate to ``rate`` times its peak (``initial_lr``)."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate


def train_plainly(
    network: nn.Module,
    loss: Callable[[nn.Module, Tensor], Tensor],
    learning_rate: float,
    loader: DataLoader[Batch],
    budget: Budget,
    average: EMA[nn.Module],
) -> None:
    """Spend a budget in the usual loop: Adam, one loss, averaged weights that follow."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    for group in optimizer.param_groups:
        group["initial_lr"] = learning_rate
    network.train()
    budget.start()
    for epoch in itertools.count():
        set_epoch(loader, epoch)
        for batch in loader:
            set_rate([optimizer], budget.rate())
            optimizer.zero_grad(set_to_none=True)
            loss(network, batch.volumes).backward()
            optimizer.step()
            average.update(network)
            if budget.step_done():
                return


@torch.no_grad()
def mean_psnr(reconstruct: Callable[[Tensor], Tensor], batches: Sequence[Batch]) -> float:
    """Return the mean over volumes of the PSNR of reconstructions, clamped to [0, 1]."""
    values = [
        psnr(reconstruct(batch.volumes).float().clamp(0, 1), batch.volumes) for batch in batches
    ]
    return float(torch.cat(values).mean())
