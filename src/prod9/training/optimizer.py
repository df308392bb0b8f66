"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), one kernel for all of a step's arithmetic."""

from collections.abc import Iterable

import pytorch_lightning as pl
from torch import nn
from torch.optim import AdamW

from prod9.config.training import OptimizerConfig, Stage2OptimizerConfig
from prod9.training.gradients import loss_scaler


def adamw(
    module: pl.LightningModule,
    parameters: Iterable[nn.Parameter],
    config: OptimizerConfig | Stage2OptimizerConfig,
    learning_rate: float,
) -> AdamW:
    """Return the optimizer of ``parameters`` at the peak ``learning_rate``.

    Not fused in fp16 training: a fused optimizer takes the loss scale out of the gradients itself,
    after they were clipped.
    """
    return AdamW(
        parameters,
        lr=learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=loss_scaler(module) is None,
    )
