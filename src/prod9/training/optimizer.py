"""The optimizer step: gradient clipping, AdamW, the learning rate over a run."""

import math
from collections.abc import Iterable, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from prod9.config.training import OptimizerConfig, SchedulerConfig, Stage2OptimizerConfig
from prod9.training.nonfinite import NonfiniteGuard


def loss_scaler(module: pl.LightningModule) -> torch.amp.GradScaler | None:
    """Return the loss scaler of fp16 training; None in other precisions or without a trainer."""
    try:
        trainer = module.trainer
    except RuntimeError:  # the module is used without a trainer
        return None
    return getattr(trainer.precision_plugin, "scaler", None)


def adamw(
    module: pl.LightningModule,
    parameters: Iterable[nn.Parameter],
    config: OptimizerConfig | Stage2OptimizerConfig,
    learning_rate: float,
) -> AdamW:
    """Return AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) at the peak ``learning_rate``.

    Fused into one kernel, except in fp16 training: a fused optimizer takes the loss scale out of
    the gradients itself, after they were clipped.
    """
    return AdamW(
        parameters,
        lr=learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=loss_scaler(module) is None,
    )


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


def clip(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients down to an L2 norm of ``limit`` (0: never); return the norm before that.

    The norm is over all parameters and stays on the device.
    """
    if limit > 0:
        norm = nn.utils.clip_grad_norm_(parameters, limit)
    else:
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # With FSDP each process has its part of the sum of squares.
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def step_if_finite(
    module: pl.LightningModule,
    optimizer: Optimizer,
    guard: NonfiniteGuard,
    limit: float,
    suffix: str = "",
) -> bool:
    """Clip the gradients; drop them where a loss term or the norm is not finite.

    To be called from ``on_before_optimizer_step``, where Lightning has taken fp16's loss scale out
    of the gradients. Logs ``train/grad_norm`` and ``train/learning_rate``, each with ``suffix``,
    and ``train/left_out``, the number of dropped steps, where ``guard`` continues after them.

    Returns:
        Whether the gradients are kept.

    Raises:
        Prod9Error: a value is not finite, and ``guard`` does not continue.
    """
    groups = optimizer.param_groups
    norm = clip([p for group in groups for p in group["params"]], limit)
    module.log(f"train/grad_norm{suffix}", norm)
    # A tensor on the CPU: Lightning would copy a number to the device, which waits for it.
    module.log(f"train/learning_rate{suffix}", torch.tensor(float(groups[0]["lr"])))
    finite = guard.admits(norm, scaled=loss_scaler(module) is not None, network=suffix)
    if guard.policy != "stop":
        module.log("train/left_out", torch.tensor(float(guard.found)))
    if not finite:  # without gradients AdamW changes neither weights nor moments
        optimizer.zero_grad(set_to_none=True)
    return finite
