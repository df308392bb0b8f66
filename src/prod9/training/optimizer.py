"""The optimizer of a network, gradient clipping, the learning rate over a run."""

import math
from collections.abc import Iterable, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from prod9.config.training import OptimizerConfig, SchedulerConfig, Stage2OptimizerConfig
from prod9.training.muon import Muon


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


def optimizer_of(
    module: pl.LightningModule,
    network: nn.Module,
    config: OptimizerConfig | Stage2OptimizerConfig,
) -> Optimizer:
    """Return the optimizer of a configuration for ``network``, at its peak learning rate."""
    if config.name == "adamw":
        return adamw(module, network.parameters(), config, config.learning_rate)
    return Muon(
        network.named_parameters(),
        lr=config.learning_rate,
        matrix_lr=config.muon_learning_rate or config.learning_rate,
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
