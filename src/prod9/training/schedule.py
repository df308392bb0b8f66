"""Learning rate over the steps of a run."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from prod9.config.training import SchedulerConfig


def rate_at(step: int, total: int, config: SchedulerConfig) -> float:
    """Return the rate at ``step`` over the peak rate: linear warm-up, then constant or cosine."""
    warmup = min(config.warmup_steps, total)
    if step < warmup:
        return (step + 1) / warmup
    if config.name == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return config.min_ratio + (1 - config.min_ratio) * (1 + math.cos(math.pi * progress)) / 2


def scheduler(optimizer: Optimizer, total: int, config: SchedulerConfig) -> LambdaLR:
    """Return the schedule for ``total`` steps of ``optimizer``."""
    return LambdaLR(optimizer, lambda step: rate_at(step, total, config))
