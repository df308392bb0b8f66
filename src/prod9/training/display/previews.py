"""Pictures made while training."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger

from prod9.montage import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Preview = Callable[[int], "Figure"]
"""Number of batches seen -> a figure."""


class Previews(Callback):
    """Draw ``preview`` every ``every_n_steps`` batches and at the end.

    The figures are written to ``folder/batch-N.png`` and to every logger that takes pictures.
    """

    def __init__(self, folder: Path, every_n_steps: int, preview: Preview) -> None:
        self.folder, self.every, self.preview = folder, every_n_steps, preview
        self.batches = self.drawn = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self.batches += 1
        if self.batches % self.every == 0:
            self._draw(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer)

    def _draw(self, trainer: pl.Trainer) -> None:
        if self.drawn == self.batches or not trainer.is_global_zero:
            return
        self.drawn = self.batches
        figure, path = self.preview(self.batches), self.folder / f"batch-{self.batches:07d}.png"
        save_figure(path, figure)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure("preview", figure, self.batches)
            elif isinstance(logger, WandbLogger):
                logger.log_image("preview", [str(path)], step=self.batches)
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_figure(logger.run_id, figure, f"previews/{path.name}")

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches: a resumed run continues to count the pictures."""
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.batches = self.drawn = state_dict["batches"]
