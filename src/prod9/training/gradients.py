"""Before an optimizer steps: clip the gradients, and log how large they were."""

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from prod9.training.nonfinite import NonfiniteGuard


def loss_scaler(module: pl.LightningModule) -> torch.amp.GradScaler | None:
    """Return what scales the losses of fp16 training; None in any other, or without a trainer."""
    try:
        trainer = module.trainer
    except RuntimeError:  # called by hand
        return None
    return getattr(trainer.precision_plugin, "scaler", None)


def clip(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale the gradients down to a norm of ``limit`` (0: never); return the norm before that.

    The norm (L2 over all parameters) stays on the device: nobody waits for it.
    """
    if limit > 0:
        norm = nn.utils.clip_grad_norm_(parameters, limit)
    else:
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # Of gradients that are split over processes, each has its part of the sum of squares.
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def clip_and_log(
    module: pl.LightningModule, optimizer: torch.optim.Optimizer, limit: float, suffix: str = ""
) -> Tensor:
    """Clip what ``optimizer`` is about to use; log ``train/grad_norm`` and its learning rate.

    To be called from ``on_before_optimizer_step``, where Lightning has taken fp16's loss scale out
    of the gradients. Where they overflowed, the norm is infinite and the scaler skips the step.

    Returns:
        The norm before clipping.
    """
    groups = optimizer.param_groups
    norm = clip([p for group in groups for p in group["params"]], limit)
    module.log(f"train/grad_norm{suffix}", norm)
    # A tensor on the CPU: Lightning would copy a plain number to the device, and wait for it.
    module.log(f"train/learning_rate{suffix}", torch.tensor(float(groups[0]["lr"])))
    return norm


def step_if_finite(
    module: pl.LightningModule,
    optimizer: torch.optim.Optimizer,
    watch: NonfiniteGuard,
    limit: float,
    suffix: str = "",
) -> bool:
    """Clip and log; leave the optimizer nothing to learn from where a number is none.

    ``train/left_out`` counts such steps, where ``watch`` goes on after them.

    Returns:
        Whether it may step.

    Raises:
        Prod9Error: a number is none, and ``watch`` does not go on.
    """
    norm = clip_and_log(module, optimizer, limit, suffix)
    fine = watch.admits(norm, scaled=loss_scaler(module) is not None, network=suffix)
    if watch.policy != "stop":
        module.log("train/left_out", torch.tensor(float(watch.found)))
    if not fine:  # without gradients AdamW changes neither weights nor moments
        optimizer.zero_grad(set_to_none=True)
    return fine
