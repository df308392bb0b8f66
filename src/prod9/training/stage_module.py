"""What the training modules of both stages share."""

from typing import Any, ClassVar, Generic, Literal, TypeVar

import pytorch_lightning as pl
import torch

from prod9.config import Stage1Config, Stage2Config
from prod9.runtime.console import say
from prod9.runtime.distributed import Means
from prod9.training.ema import EMA
from prod9.training.nonfinite import NonfiniteGuard
from prod9.training.optimizer import clip, loss_scaler

ConfigT = TypeVar("ConfigT", Stage1Config, Stage2Config)


class StageModule(pl.LightningModule, Generic[ConfigT]):
    """Averaged weights, the check for values that are not finite, and means of a validation.

    A subclass sets ``ema``, *after* the network that it averages: Lightning gives the states of a
    checkpoint's optimizer to FSDP in the order of all parameters, and the trained ones come first.

    Args:
        config: the whole configuration of the stage.
    """

    ema: EMA[Any]

    title: ClassVar[str]
    """First words of the progress lines."""
    monitor: ClassVar[str]
    """Metric by which the best checkpoints are chosen."""
    mode: ClassVar[Literal["min", "max"]]
    """Whether its least or its greatest value is the best."""
    costlier_with: ClassVar[str] = ""
    """What makes steps slower from batch :meth:`costlier_from` on."""
    batches_seen = 0
    """Counted where steps depend on it."""

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config: ConfigT = config
        self.nonfinite_guard = NonfiniteGuard(
            config.trainer.on_nan, config.output_dir / "nonfinite"
        )
        self._means = Means()
        self._suffix = ""
        """Of names in the log, for the network whose optimizer steps."""
        self._finite = True
        """Whether the gradients of the last optimizer step were kept."""

    def costlier_from(self) -> int:
        """Return the batch from which a step costs more; 0 where all cost alike."""
        return 0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients; drop them where a loss term or their norm is not finite.

        Lightning has taken fp16's loss scale out of the gradients before.
        """
        guard, suffix, groups = self.nonfinite_guard, self._suffix, optimizer.param_groups
        limit = self.config.training.stability.gradient_clip
        norm = clip([p for group in groups for p in group["params"]], limit)
        self.log(f"train/grad_norm{suffix}", norm)
        # A tensor on the CPU: Lightning would copy a number to the device, which waits for it.
        self.log(f"train/learning_rate{suffix}", torch.tensor(float(groups[0]["lr"])))
        scaled = loss_scaler(self) is not None
        self._finite = guard.admits(norm, scaled=scaled, network=suffix)
        if guard.policy != "stop":
            self.log("train/left_out", torch.tensor(float(guard.found)))
        if not self._finite:  # without gradients AdamW changes neither weights nor moments
            optimizer.zero_grad(set_to_none=True)

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
