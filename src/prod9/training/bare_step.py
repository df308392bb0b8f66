"""A training step without Lightning's loop around it, and without a trace."""

import copy
import random
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prod9.metrics.codebook import CodebookUsage
from prod9.runtime.distributed import Means
from prod9.training.ema import EMA
from prod9.training.nonfinite import NonfiniteGuard
from prod9.training.stage_module import StageModule


def replace_loop(module: StageModule[Any], optimizers: Sequence[Any], schedules: Any) -> None:
    """Replace what a module calls of Lightning's loop; nothing is logged."""

    def nothing(*_: object, **__: object) -> None:
        pass

    replacements = {
        "optimizers": lambda: optimizers,
        "lr_schedulers": lambda: schedules,
        "manual_backward": Tensor.backward,
        "log": nothing,
        "log_dict": nothing,
    }
    for name, replacement in replacements.items():
        setattr(module, name, replacement)


def take_step(module: Any, batch: Any, precision: AbstractContextManager[Any]) -> None:
    """Do what Lightning does with a batch; the forward pass within ``precision``."""
    with precision:
        loss = module.training_step(batch, 0)
    if loss is not None:
        (optimizer,) = module.optimizers()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.on_train_batch_end(None, batch, 0)


class _Indifferent(NonfiniteGuard):
    """Drops what is not finite, and neither says so nor ends the run."""

    def _react(self, name: str, value: float) -> None:
        pass


class _Rehearsal:
    """An optimizer of copies, with the gradients of the parameters themselves.

    Args:
        module: whose ``on_before_optimizer_step`` clips.
        optimizer: new, without a state; is made to hold the copies.
    """

    def __init__(self, module: StageModule[Any], optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer = module, optimizer
        self.param_groups = [dict(group) for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["params"] = [p.detach().clone() for p in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self) -> None:
        # It asks of an optimizer no more than what is here.
        self.module.on_before_optimizer_step(self)  # pyright: ignore[reportArgumentType]
        for mine, theirs in zip(self.optimizer.param_groups, self.param_groups, strict=True):
            for copied, parameter in zip(mine["params"], theirs["params"], strict=True):
                copied.grad = parameter.grad
        self.optimizer.step()


@contextmanager
def rehearsal(module: StageModule[Any]) -> Generator[None]:
    """Let ``module`` take steps in this block that cost what real ones do and change nothing.

    Afterwards weights, averages, counters and random numbers are as they were; for so long there
    are copies of weights, averages and moments. For a run of one process, between two steps.
    """
    attributes, ema = dict(vars(module)), module.ema
    numbers, states = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            for name, value in attributes.items():
                if isinstance(value, Tensor | Means | CodebookUsage):
                    setattr(module, name, copy.deepcopy(value))
            policy, folder = module.config.trainer.on_nan, module.nonfinite_guard.folder
            module.nonfinite_guard = _Indifferent(policy, folder)
            configured: Any = module.configure_optimizers()
            optimizers, schedules = configured
            module.ema = EMA(ema.network, ema.decay)
            replace_loop(module, [_Rehearsal(module, each) for each in optimizers], schedules)
            yield
        finally:
            module.ema = ema
            vars(module).clear()
            vars(module).update(attributes)
            module.zero_grad(set_to_none=True)
            np.random.set_state(numbers)  # noqa: NPY002
            random.setstate(states)
