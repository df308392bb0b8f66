"""What the training modules of both stages share."""

from typing import Any, ClassVar, Generic, Literal, TypeVar

import pytorch_lightning as pl
import torch
from torch import nn

from prod9.config import Stage1Config, Stage2Config
from prod9.runtime.console import say
from prod9.runtime.distributed import Means
from prod9.training.ema import EMA
from prod9.training.nonfinite import NonfiniteGuard
from prod9.training.optimizer import step_if_finite

ConfigT = TypeVar("ConfigT", Stage1Config, Stage2Config)


class StageModule(pl.LightningModule, Generic[ConfigT]):
    """Averaged weights, the check for values that are not finite, and means of a validation.

    Args:
        config: the whole configuration of the stage.
        network: the network that is trained and averaged.
    """

    title: ClassVar[str]
    """First words of the progress lines."""
    monitor: ClassVar[str]
    """Metric by which the best checkpoints are chosen."""
    mode: ClassVar[Literal["min", "max"]]
    """Whether its least or its greatest value is the best."""

    def __init__(self, config: ConfigT, network: nn.Module) -> None:
        super().__init__()
        self.config: ConfigT = config
        self.ema: EMA[Any] = EMA(network, config.training.stability.ema_decay)
        self.nonfinite_guard = NonfiniteGuard(
            config.trainer.on_nan, config.output_dir / "nonfinite"
        )
        self._means = Means()
        self._suffix = ""
        """Of names in the log, for the network whose optimizer steps."""
        self._finite = True
        """Whether the gradients of the last optimizer step were kept."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients, and drop them where they are not finite."""
        limit = self.config.training.stability.gradient_clip
        self._finite = step_if_finite(self, optimizer, self.nonfinite_guard, limit, self._suffix)

    def on_train_end(self) -> None:
        """Print how many steps were left out."""
        guard = self.nonfinite_guard
        if guard.found:
            say(
                f"steps left out of this run, for loss terms or gradients that were NaN or "
                f"infinite (trainer.on_nan={guard.policy}): {guard.found}; the first batches are "
                f"in {guard.folder}"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the counts."""
        checkpoint["left_out"] = self.nonfinite_guard.found

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counts."""
        self.nonfinite_guard.found = int(checkpoint["left_out"])
